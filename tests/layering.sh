#!/usr/bin/env bash
# Who may include whom (docs/ARCHITECTURE.md), checked over all sources. Prints each breach as
# file:line and fails; with --self-test it checks that it does notice breaches.
# shellcheck disable=SC2016
set -euo pipefail
cd "$(dirname "$0")/.."

# Module: modules it may use; third-party headers it owns.
rules='
base:; crypt.h
io: base; liburing.h
smtp: base;
queue: base; lmdb.h zstd.h
dns: base io tls; ares.h idn2.h
tls: base; openssl/ sodium.h
sts: base dns; curl/
config: base smtp; libfyaml.h idn2.h
mail: base smtp dns tls; idn2.h gmime/ jansson.h glib.h zlib.h
limits: base config;
worker: base io smtp queue dns tls sts config mail limits;
schedule: base io smtp queue dns tls sts config mail limits worker;
outcome: base io smtp queue dns tls sts config mail limits worker schedule; jansson.h gmime/
deliver: base io smtp queue dns tls sts config mail limits worker schedule outcome;
intake: base io smtp queue dns tls sts config mail limits worker schedule outcome;
http: base io smtp queue dns tls sts config mail limits worker schedule outcome intake; jansson.h glib.h microhttpd.h zlib.h
control: base io smtp queue dns tls sts config mail limits worker schedule outcome deliver intake http; jansson.h
run: base io smtp queue dns tls sts config mail limits worker schedule outcome deliver intake http control;
tools/commands: base io smtp queue dns tls sts config mail limits worker schedule outcome deliver intake http control run; jansson.h gmime/ libfyaml.h
tools/send: base io smtp queue dns tls sts config mail limits http tools/commands tools/sink; gmime/ jansson.h curl/ libfyaml.h
tools/sink: base io smtp queue dns tls sts config mail limits worker tools/commands; libfyaml.h
tools: base config tools/commands;
'
third_party='liburing.h crypt.h lmdb.h zstd.h ares.h idn2.h openssl/ sodium.h libfyaml.h jansson.h gmime/ glib.h microhttpd.h zlib.h libpsl.h curl/ hiredis/'

check() { # root of a tree
    local file
    (cd "$1" && for file in engine/*/*.[ch] {queue,dns,tls,tools}/*.[ch] tools/*/*.[ch]; do
        [ ! -e "$file" ] || echo "$file"
    done) | (cd "$1" && rules=$rules third_party=$third_party xargs -r awk '
    BEGIN {
        n = split(ENVIRON["rules"], lines, "\n")
        for (i = 1; i <= n; i++) {
            if (split(lines[i], part, /[:;]/) < 3) continue
            known[part[1]] = 1
            m = split(part[2], uses, " ")
            for (j = 1; j <= m; j++) may_use[part[1], uses[j]] = 1
            may_use[part[1], part[1]] = 1
            m = split(part[3], owned, " ")
            for (j = 1; j <= m; j++) owns[part[1], owned[j]] = 1
        }
        libraries = split(ENVIRON["third_party"], library, " ")
    }
    FNR == 1 {
        module = FILENAME
        sub(/\/[^\/]*$/, "", module)
        sub(/^engine\//, "", module)
    }
    function breach(text) {
        printf "%s:%d: %s\n", FILENAME, FNR, text
        bad = 1
    }
    /^[ \t]*#[ \t]*include[ \t]*"/ {
        split($0, quoted, "\"")
        path = quoted[2]
        target = path
        if (!sub(/\/[^\/]*$/, "", target)) {
            breach("\"" path "\": written from the top of the tree, please")
            next
        }
        sub(/^engine\//, "", target)
        if (!(target in known)) breach("\"" path "\" is of no module")
        else if (!((module, target) in may_use)) breach(module " must not use " target " (\"" path "\")")
        included[path] = included[path] " " module
    }
    /^[ \t]*#[ \t]*include[ \t]*</ {
        header = $0
        gsub(/.*<|>.*/, "", header)
        for (i = 1; i <= libraries; i++) {
            if (index(header, library[i]) != 1) continue
            if (!((module, library[i]) in owns)) breach("<" header "> does not belong in " module)
            else if (FILENAME ~ /\.h$/) leaks[FILENAME] = header " " module " " library[i]
        }
    }
    # A private header may show a library to its own module only, and to those that own the library too.
    END {
        for (file in leaks) {
            split(leaks[file], leak, " ")
            name = file
            sub(/^engine\//, "", name)
            users = split(included[name], user, " ")
            for (i = 1; i <= users; i++)
                if (user[i] != leak[2] && !((user[i], leak[3]) in owns)) {
                    printf "%s: shows <%s> to %s\n", file, leak[1], user[i]
                    bad = 1
                }
        }
        exit bad
    }')
}

self_test() {
    local case
    dir=$(mktemp -d)
    trap 'rm -rf "$dir"' EXIT
    for case in 'engine/smtp/a.c|#include "io/io.h"' 'engine/base/a.h|#include <jansson.h>' \
        'queue/a.c|#include "config/config.h"' 'dns/a.c|#include <lmdb.h>' 'dns/a.c|#include "dns.h"' \
        'engine/worker/a.c|#include "schedule/lane.h"' 'engine/schedule/a.c|#include "outcome/judge.h"' \
        'engine/outcome/a.c|#include "control/control.h"' 'engine/intake/a.c|#include "deliver/dial.h"'; do
        rm -rf "${dir:?}"/*
        mkdir -p "$dir"/{engine/{base,io,smtp,config,worker,schedule,outcome,intake},queue,dns,tls,tools}
        printf '%s\n' "${case#*|}" >"$dir/${case%%|*}"
        if check "$dir" >/dev/null; then
            echo "not noticed: $case"
            exit 1
        fi
    done
    rm -rf "${dir:?}"/*
    mkdir -p "$dir"/{engine/worker,queue}
    echo '#include <lmdb.h>' >"$dir/queue/private.h"
    echo '#include "queue/private.h"' >"$dir/queue/a.c"
    check "$dir" || { echo 'a private header was refused'; exit 1; }
    echo '#include "queue/private.h"' >"$dir/engine/worker/a.c"
    if check "$dir" >/dev/null; then
        echo 'a library shown through a header was not noticed'
        exit 1
    fi
    echo 'self-test passed'
}

case ${1:-} in
--self-test) self_test ;;
'') check . && echo 'layering kept' ;;
*) echo "usage: $0 [--self-test]" >&2; exit 64 ;;
esac
