#!/usr/bin/env bash
# Makes the secrets of compose.yaml in DIR, by default docker/secrets, once: what is there is left as it is.
#
#   docker/secrets.sh [DIR]
set -euo pipefail
dir=${1:-$(dirname "$0")/secrets}
umask 077
mkdir -p "$dir"
cd "$dir"

secret() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
once() { # FILE: what comes in, if there is no such file
	if [ -e "$1" ]; then cat >/dev/null; else cat >"$1"; fi
}

for name in token cluster mariadb redis rabbitmq; do secret | once "$name"; done
once redis.conf <<-END
	requirepass $(<redis)
	appendonly yes
END
once rabbitmq.conf <<-END
	default_user = gantry
	default_pass = $(<rabbitmq)
END
once gantry.yaml <<-END
	database: mysql://gantry:$(<mariadb)@mariadb:3306/gantry
	redis: redis://:$(<redis)@redis:6379
	queue: amqp://gantry:$(<rabbitmq)@rabbitmq:5672/
END
# The containers' users are not the one who runs this; nobody else can look into the directory.
chmod 644 -- *
echo "the secrets are in $PWD; clients need the one in token"
