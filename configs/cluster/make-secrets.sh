#!/bin/sh
# Makes secrets/ beside this file for compose.yaml: passwords, a private CA and a certificate, and what EMQX
# reads. What is there stays as it is. Needs thingctl and openssl.
#   make-secrets.sh NAME [FOLDER]     NAME: the host name by which devices and operators come
set -eu
name=${1:?the host name by which devices and operators come}
here=$(cd "$(dirname "$0")" && pwd)
secrets=${2:-$here/secrets}
umask 077
mkdir -p "$secrets"
cd "$secrets"

[ -e postgres-password ] || openssl rand -hex 24 > postgres-password
[ -e link-password ] || openssl rand -hex 24 > link-password
[ -e pgpass ] || echo "postgres.cluster.internal:5432:thingctl:thingctl:$(cat postgres-password)" > pgpass
[ -e users.csv ] || printf 'user_id,password,is_superuser\nthingctl-worker,%s,false\n' "$(cat link-password)" > users.csv
[ -e server.crt ] || thingctl tls init --dir . --name "$name" --name emqx.cluster.internal
[ -e server.pem ] || cat server.crt server.key > server.pem
# EMQX asks over the containers' own network; the token comes when there is one: see docs/cluster.md.
[ -e authentication.hocon ] || sed \
  -e 's|https://thingctl.example:8443/|http://balancer:8080/|' -e '/^ *ssl {/d' \
  "$here/../emqx/authentication.hocon" > authentication.hocon

[ "$(id -u)" != 0 ] || chown -R 1000:1000 .
echo "secrets: $secrets (keep ca.key elsewhere, and put $name into worker.toml as public_url)"
