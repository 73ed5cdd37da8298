#!/usr/bin/env bash
# Make an authority, and with it a certificate for servers and one for clients.
#
#   scripts/security/generate_tls_assets.sh OUT_DIR NAME[,NAME…] [--force]
#
# The names are those by which clients call the servers, IP addresses among them; the first is the common name. Into OUT_DIR go
# ca.crt, ca.key, server.crt, server.key, client.crt and client.key; what is there already stays, unless it is --force.
#
# DAYS (365), CLIENT_CN (stem-client) and KEY_BITS (4096) choose otherwise.

set -euo pipefail

say() { echo "generate_tls_assets: $*" >&2; }
usage() { say "usage: generate_tls_assets.sh OUT_DIR NAME[,NAME…] [--force]"; exit 64; }

has_force=false words=()
for word; do
    case $word in
    --force) has_force=true ;;
    -*) usage ;;
    *) words+=("$word") ;;
    esac
done
[ ${#words[@]} -eq 2 ] && [ -n "${words[0]}" ] || usage
out=${words[0]}
IFS=',' read -ra names <<<"${words[1]}"

subject_names=
for name in ${names[@]+"${names[@]}"}; do
    if [[ $name =~ ^[0-9]+(\.[0-9]+){3}$ || $name =~ ^[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*$ ]]; then
        subject_names+=",IP:$name"
    elif [[ $name =~ ^[A-Za-z0-9*]([A-Za-z0-9._-]*[A-Za-z0-9])?(\.[A-Za-z0-9-]+)*$ ]]; then
        subject_names+=",DNS:$name"
    else
        say "'$name' is neither a host name nor an IP address"
        exit 64
    fi
done
[ -n "$subject_names" ] || usage

command -v openssl >/dev/null || { say "there is no openssl. On Debian: apt install openssl"; exit 69; }
files=(ca.crt ca.key server.crt server.key client.crt client.key)
if ! $has_force; then
    for file in "${files[@]}"; do
        [ ! -e "$out/$file" ] || { say "$out/$file is there already; --force writes over it"; exit 73; }
    done
fi

# They are made beside their place, so that a set is never half a new one.
mkdir -p "$out"
umask 077
new=$(mktemp -d "$out/new-XXXXXX")
trap 'rm -rf "$new"' EXIT

make() { # a name, its common name, what its certificate says, and who signs it
    local name=$1 common_name=$2 extensions=$3
    shift 3
    openssl req -new -newkey "rsa:${KEY_BITS:-4096}" -nodes -sha256 -subj "/CN=$common_name" \
        -keyout "$new/$name.key" -out "$new/$name.csr" &&
        openssl x509 -req -sha256 -days "${DAYS:-365}" -set_serial "0x$(openssl rand -hex 16)" -in "$new/$name.csr" \
            -extfile <(printf '%s\n' "$extensions" subjectKeyIdentifier=hash) "$@" -out "$new/$name.crt"
}

make_all() {
    local authority leaf signed_by=(-CA "$new/ca.crt" -CAkey "$new/ca.key")
    authority=$'basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign'
    leaf=$'basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature,keyEncipherment\nauthorityKeyIdentifier=keyid'
    make ca "Stem authority" "$authority" -signkey "$new/ca.key" &&
        make server "${names[0]}" "$leaf"$'\nextendedKeyUsage=serverAuth\nsubjectAltName='"${subject_names#,}" "${signed_by[@]}" &&
        make client "${CLIENT_CN:-stem-client}" "$leaf"$'\nextendedKeyUsage=clientAuth' "${signed_by[@]}" &&
        openssl verify -x509_strict -CAfile "$new/ca.crt" -purpose sslserver "$new/server.crt" &&
        openssl verify -x509_strict -CAfile "$new/ca.crt" -purpose sslclient "$new/client.crt"
}

make_all >"$new/log" 2>&1 || { grep -vE '^[-.+*]*$' "$new/log" >&2; say "openssl does not make them"; exit 70; }
chmod 644 "$new"/*.crt # everybody may read a certificate; keys are for their owner
for file in "${files[@]}"; do mv "$new/$file" "$out/$file"; done

cat <<END
$out/ca.crt       whom to trust: to every Stem process, as STEM_TLS_CA_CERT
$out/ca.key       makes further certificates: to nobody
$out/server.crt   with server.key, for servers that are called ${names[*]}
$out/client.crt   with client.key, where the server asks for them: STEM_TLS_CLIENT_CERT, STEM_TLS_CLIENT_KEY
valid for ${DAYS:-365} days
END
