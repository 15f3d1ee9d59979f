-- The tables of WSO2 API Manager that a gateway needs for its clients' certificates, column for column, but that
-- API_ID is in the certificates' primary key, so that an alias is unique for an API and key type. SCOPES is ours.
--
-- NEEDS is the oldest VERSION that a program must know to use the database from here on: programs of several
-- versions share one database for as long as migrations only add what the older ones need not know.

CREATE TABLE SALLYPORT_SCHEMA (
    VERSION INTEGER NOT NULL,
    NEEDS   INTEGER NOT NULL,
    PRIMARY KEY (VERSION)
);

CREATE TABLE AM_API (
    API_ID             INTEGER PRIMARY KEY AUTOINCREMENT,
    API_UUID           VARCHAR(255),
    API_PROVIDER       VARCHAR(200),
    API_NAME           VARCHAR(200),
    API_VERSION        VARCHAR(30),
    CONTEXT            VARCHAR(256),
    CONTEXT_TEMPLATE   VARCHAR(256),
    API_TIER           VARCHAR(256),
    API_TYPE           VARCHAR(10),
    ORGANIZATION       VARCHAR(100),
    CREATED_BY         VARCHAR(100),
    CREATED_TIME       TIMESTAMP,
    UPDATED_BY         VARCHAR(100),
    UPDATED_TIME       TIMESTAMP,
    STATUS             VARCHAR(30),
    LOG_LEVEL          VARCHAR(255) DEFAULT 'OFF',
    REVISIONS_CREATED  INTEGER DEFAULT 0,
    VERSION_COMPARABLE VARCHAR(15),
    UNIQUE (API_PROVIDER, API_NAME, API_VERSION),
    UNIQUE (API_UUID)
);

CREATE TABLE AM_API_CLIENT_CERTIFICATE (
    TENANT_ID     INTEGER NOT NULL,
    ALIAS         VARCHAR(45) NOT NULL,
    API_ID        INTEGER NOT NULL,
    CERTIFICATE   BLOB NOT NULL,
    REMOVED       BOOLEAN NOT NULL DEFAULT 0,
    TIER_NAME     VARCHAR(512),
    KEY_TYPE      VARCHAR(20) NOT NULL DEFAULT 'PRODUCTION',
    REVISION_UUID VARCHAR(255) NOT NULL DEFAULT 'Current API',
    SCOPES        VARCHAR(4096),
    PRIMARY KEY (API_ID, ALIAS, TENANT_ID, KEY_TYPE, REMOVED, REVISION_UUID),
    FOREIGN KEY (API_ID) REFERENCES AM_API (API_ID) ON DELETE CASCADE ON UPDATE CASCADE
);

INSERT INTO SALLYPORT_SCHEMA (VERSION, NEEDS) VALUES (1, 1);
