#!/bin/bash
# Runs once, on an empty volume: a database and an owner for each of the three that share the server.
set -euo pipefail

make_database() {
    psql --username postgres --dbname postgres --set ON_ERROR_STOP=1 \
        --set name="$1" --set password="$2" <<'SQL'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE CONNECT ON DATABASE :"name" FROM PUBLIC;
SQL
}

make_database maskloop "$MASKLOOP_DATABASE_PASSWORD"
make_database labelstudio "$LABEL_STUDIO_DATABASE_PASSWORD"
make_database mlflow "$MLFLOW_DATABASE_PASSWORD"
