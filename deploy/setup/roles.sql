-- Roles of an installation, made once by whoever administers the server, in the database that is to hold the usage:
--
--   psql --set=ON_ERROR_STOP=1 --dbname=usage --file=roles.sql --set=owner_password=... --set=maintenance_password=... \
--       --set=writer_password=... --set=reader_password=... --set=grafana_password=...
--
-- What each may do with tables is granted by `ingest-worker migrate` (WRITER_ROLE=usage_writer READER_ROLE=usage_reader).

-- role: owner. Its URL is the migration's. It owns the tables, and nothing else.
CREATE ROLE usage_owner LOGIN PASSWORD :'owner_password';
-- role: maintenance. A member of the owner, so that its password can be changed apart. INHERIT is the default.
CREATE ROLE usage_maintenance LOGIN PASSWORD :'maintenance_password' IN ROLE usage_owner;
-- role: writer. The worker's: adds events and dead letters, changes nothing that was stored.
CREATE ROLE usage_writer LOGIN PASSWORD :'writer_password';
-- role: reader. The API's: reads.
CREATE ROLE usage_reader LOGIN PASSWORD :'reader_password';
-- role: grafana. A reader with a limit of its own: people write its statements.
CREATE ROLE usage_grafana LOGIN PASSWORD :'grafana_password' IN ROLE usage_reader CONNECTION LIMIT 5;
ALTER ROLE usage_grafana SET statement_timeout = '30s';
ALTER ROLE usage_grafana SET default_transaction_read_only = on;

-- The owner makes tables in `public`; before PostgreSQL 15 everybody could.
GRANT CREATE, USAGE ON SCHEMA public TO usage_owner;
SELECT format('GRANT CREATE, TEMPORARY ON DATABASE %I TO usage_owner', current_database()) \gexec
-- The writer needs temporary tables: late and repeated events go through one.
SELECT format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO usage_writer', current_database()) \gexec
SELECT format('GRANT CONNECT ON DATABASE %I TO usage_reader', current_database()) \gexec
