# What the `run` of an example with Postgres shares with the others: settings, servers of its own where none are named, and an end
# for all that was started. For bash, to be sourced.
#
# Own servers are reached by sockets in a folder of their own, and go with it, data and all, when the example ends.

. "$(dirname "${BASH_SOURCE[0]}")/../scripts/postgres.sh"

own=
trap leave EXIT

read_settings() { # the environment goes first, then .env, then .env.example
    local file name value
    for file in .env .env.example; do
        [ -f "$file" ] || continue
        while IFS='=' read -r name value; do
            case $name in '' | \#*) continue ;; esac
            [ -n "${!name+set}" ] || export "$name=$value"
        done <"$file"
    done
}

own_folder() { # sets own
    [ -n "$own" ] || own=$(mktemp -d "${TMPDIR:-/tmp}/stem-example-XXXXXX")
}

own_redis() { # sets own_redis_url
    local program _
    program=$(command -v redis-server || command -v valkey-server) || fail "there is no redis-server. On Debian: apt install redis-server"
    own_folder
    own_redis_url="unix://$own/redis.sock?db=0"
    "$program" --port 0 --unixsocket "$own/redis.sock" --dir "$own" --logfile "$own/redis.log" --pidfile "$own/redis.pid" \
        --daemonize yes --appendonly yes --save "" --maxmemory-policy noeviction >/dev/null
    for _ in $(seq 100); do
        [ ! -S "$own/redis.sock" ] || return 0
        sleep 0.1
    done
    fail "redis-server does not start: $(tail -n 5 "$own/redis.log")"
}

own_postgres() { # a database, and settings of the server; sets own_postgres_url
    local database=$1 port=${POSTGRES_PORT:-5432} missing
    shift
    missing=$(can_run_postgres) || fail "$missing"
    own_folder
    own_postgres_url="postgres:///$database?host=$own&port=$port&user=stem"
    give_to_postgres "$own"
    postgres initdb --username stem --auth trust --no-sync --pgdata "$own/data"
    printf '%s\n' "unix_socket_directories = '$own'" "listen_addresses = ''" "port = $port" "$@" >>"$own/data/postgresql.conf"
    postgres pg_ctl start --wait --pgdata "$own/data" --log "$own/postgres.log"
    postgres createdb --host "$own" --port "$port" --username stem "$database"
}

postgres() { # one of its programs; quiet unless it fails
    local said
    said=$(cd "$own" && as_postgres "$(postgres_program "$1")" "${@:2}" 2>&1 </dev/null) ||
        fail "$1 fails: $said $(tail -n 3 "$own/postgres.log" 2>/dev/null)"
}

fail() {
    echo "run: $*. Or name a server that is there, in .env" >&2
    exit 69
}

leave() { # first those who work, then the servers they work on
    local nodes redis
    nodes=$(jobs -p)
    [ -z "$nodes" ] || kill $nodes 2>/dev/null || true
    wait
    [ -n "$own" ] || return 0
    [ ! -e "$own/data/postmaster.pid" ] || postgres pg_ctl stop --mode immediate --pgdata "$own/data"
    if [ -e "$own/redis.pid" ]; then
        redis=$(cat "$own/redis.pid")
        kill "$redis" && tail --pid="$redis" -f /dev/null
    fi
    rm -rf "$own"
}
