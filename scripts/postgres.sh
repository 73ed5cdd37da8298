# What every script that starts a Postgres of its own has to know: where its programs are, and who may run them. For bash, to be
# sourced.

postgres_program() { # Debian keeps them off the PATH
    command -v "$1" || find /usr/lib/postgresql -path "*/bin/$1" 2>/dev/null | sort -V | tail -n 1 | grep .
}

can_run_postgres() { # else says what is missing
    if ! postgres_program initdb >/dev/null; then
        echo "there is no Postgres. On Debian: apt install postgresql"
        return 1
    fi
    if [ "$(id -u)" -eq 0 ] && ! getent passwd postgres >/dev/null; then
        echo "there is no user postgres to run Postgres, which does not run as root"
        return 1
    fi
}

as_postgres() { # a command
    if [ "$(id -u)" -ne 0 ]; then "$@"; else runuser -u postgres -- "$@"; fi
}

give_to_postgres() { # a folder
    [ "$(id -u)" -ne 0 ] || chown -R postgres "$1"
}
