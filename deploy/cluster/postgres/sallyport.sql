-- The gateways' database, and its owner: the first gateway that starts makes the tables. setup makes what is in made/.
\set password `cat '/docker-entrypoint-initdb.d/made/store.password'`
CREATE ROLE sallyport LOGIN PASSWORD :'password';
CREATE DATABASE sallyport OWNER sallyport;
