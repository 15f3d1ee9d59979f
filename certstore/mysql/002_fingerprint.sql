-- FINGERPRINT is there already. No trigger makes it unknown, since an ordinary owner of a database may not be allowed to
-- make one: who puts a certificate in place of another sets FINGERPRINT to NULL.

INSERT IGNORE INTO SALLYPORT_SCHEMA (VERSION, NEEDS) VALUES (2, 1);
