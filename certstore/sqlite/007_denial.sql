-- SALLYPORT_DENIAL is the deny list: certificates that no gateway admits, whatever vouches for them. KIND says what DIGEST,
-- a SHA-256 in hex, is of: fingerprint, of the certificate; spki, of its SubjectPublicKeyInfo; serial, of its ISSUER, the
-- name as DER, with SERIAL_NUMBER, in hex without leading zeros, which is '' for the other kinds. SINCE is in seconds since
-- 1970. A change of the list is told like one of registrations.
--
-- Once the list has had a row, NEEDS of this version is raised: a program that doesn't know it would admit whom it names.

CREATE TABLE SALLYPORT_DENIAL (
    KIND          VARCHAR(16) NOT NULL,
    DIGEST        VARCHAR(64) NOT NULL,
    SERIAL_NUMBER VARCHAR(128) NOT NULL,
    ISSUER        BLOB,
    REMARK        VARCHAR(255) NOT NULL,
    SINCE         BIGINT NOT NULL,
    PRIMARY KEY (KIND, DIGEST, SERIAL_NUMBER)
);

CREATE TRIGGER SALLYPORT_DENIAL_INSERTED AFTER INSERT ON SALLYPORT_DENIAL
BEGIN UPDATE SALLYPORT_CHANGE SET MARK = random(); END;
CREATE TRIGGER SALLYPORT_DENIAL_UPDATED AFTER UPDATE ON SALLYPORT_DENIAL
BEGIN UPDATE SALLYPORT_CHANGE SET MARK = random(); END;
CREATE TRIGGER SALLYPORT_DENIAL_DELETED AFTER DELETE ON SALLYPORT_DENIAL
BEGIN UPDATE SALLYPORT_CHANGE SET MARK = random(); END;

INSERT INTO SALLYPORT_SCHEMA (VERSION, NEEDS) VALUES (7, 1);
