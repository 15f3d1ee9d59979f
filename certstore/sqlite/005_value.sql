-- SALLYPORT_VALUE holds what the gateways of a cluster share, as keys and certificates that an ACME server has issued. NAME
-- is a path, compared byte for byte; CHANGED_AT is in milliseconds since 1970, by the clock of the database. CONTENT may be
-- encrypted: who writes it knows.

CREATE TABLE SALLYPORT_VALUE (
    NAME       VARCHAR(512) NOT NULL,
    CHANGED_AT BIGINT NOT NULL,
    CONTENT    BLOB NOT NULL,
    PRIMARY KEY (NAME)
);

-- SALLYPORT_LEASE says which HOLDER alone may do what NAME stands for until ENDS_AT, in milliseconds since 1970. The clock
-- of the database decides: those of the gateways differ.

CREATE TABLE SALLYPORT_LEASE (
    NAME    VARCHAR(512) NOT NULL,
    HOLDER  VARCHAR(255) NOT NULL,
    ENDS_AT BIGINT NOT NULL,
    PRIMARY KEY (NAME)
);

INSERT INTO SALLYPORT_SCHEMA (VERSION, NEEDS) VALUES (5, 1);
