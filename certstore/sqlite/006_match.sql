-- LEAF_MATCH says which leaves of a registered CA count, as JSON; NULL stands for all. Once a row has one, NEEDS of this
-- version is raised: a program that doesn't know the column would leave it out of the row that takes the other's place.

ALTER TABLE AM_API_CLIENT_CERTIFICATE ADD COLUMN LEAF_MATCH VARCHAR(4096);

INSERT INTO SALLYPORT_SCHEMA (VERSION, NEEDS) VALUES (6, 1);
