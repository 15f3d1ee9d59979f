-- SALLYPORT_CONFIG holds the versions of a cluster's configuration, of which the highest is the current one, and
-- SALLYPORT_CONFIG_FILE their files. CREATED_AT is in seconds since 1970; DIGEST vouches for the files; KEY_ID is the age
-- recipient that CONTENT is encrypted to, '' if it is not; ROLLBACK_OF is the version whose files were taken again, 0 for
-- none. A version never changes: old ones are removed as a whole.

CREATE TABLE SALLYPORT_CONFIG (
    VERSION     INTEGER NOT NULL,
    CREATED_AT  BIGINT NOT NULL,
    CREATED_BY  VARCHAR(255) NOT NULL,
    DIGEST      VARCHAR(64) NOT NULL,
    KEY_ID      VARCHAR(255) NOT NULL,
    ROLLBACK_OF INTEGER NOT NULL,
    PRIMARY KEY (VERSION)
);

CREATE TABLE SALLYPORT_CONFIG_FILE (
    VERSION INTEGER NOT NULL,
    PATH    VARCHAR(255) NOT NULL,
    CONTENT BLOB NOT NULL,
    PRIMARY KEY (VERSION, PATH)
);

-- SALLYPORT_NODE is what each gateway says of itself: the VERSION that it serves, 0 for none, STATE, which is '' or what
-- keeps it from serving the current one, and when it said so last, in seconds since 1970.

CREATE TABLE SALLYPORT_NODE (
    NODE    VARCHAR(255) NOT NULL,
    VERSION INTEGER NOT NULL,
    STATE   VARCHAR(1024) NOT NULL,
    SEEN_AT BIGINT NOT NULL,
    PRIMARY KEY (NODE)
);

INSERT INTO SALLYPORT_SCHEMA (VERSION, NEEDS) VALUES (4, 1);
