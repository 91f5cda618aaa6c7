#!/usr/bin/env bash
# Prove the two commands of the README on a machine that has Python and pip and nothing else.
#
#     sudo scripts/prove_bare.sh            in a temporary folder, removed afterwards
#     sudo scripts/prove_bare.sh FOLDER     keeps the bare system in FOLDER for the next proof
#
# Makes a minimal Debian 12 with debootstrap, adds an ordinary user, copies the project's files into a
# folder of theirs whose name has a space, and runs there: the demonstration, the tests, the
# demonstration again without a network, and the starts that have to be survived or refused. The Debian
# mirror is the host's (or $MIRROR); pip's and uv's settings, proxies and certificates of the host are
# carried over, since an index that only the host's settings can reach is reached with them here too.
set -euo pipefail

suite=bookworm
project=$(cd "$(dirname "$0")/.." && pwd)

fail() {
    printf 'prove_bare: %s\n' "$*" >&2
    exit 1
}

[ "$(id -u)" -eq 0 ] || fail "needs root, because it makes a system to change into. Try: sudo $0"
command -v debootstrap >/dev/null || fail "needs debootstrap. Try: apt-get install debootstrap"
# In a mount namespace of its own, so that what is mounted below vanishes with the script.
if [ -z "${PROVE_BARE_INSIDE:-}" ]; then
    PROVE_BARE_INSIDE=1 exec unshare --mount -- bash "$0" "$@"
fi

# --- The bare system ------------------------------------------------------------------------------
work=${1:-$(mktemp -d)}
mkdir -p "$work"
work=$(cd "$work" && pwd)
base=$work/base
root=$work/root
mounts=()

cleanup() {
    for ((i = ${#mounts[@]} - 1; i >= 0; i--)); do umount "${mounts[i]}" 2>/dev/null || true; done
    rm -rf --one-file-system "$root"
    [ -n "${keep:-}" ] || rm -rf --one-file-system "$work"
}
keep=${1:-}
trap cleanup EXIT

if [ ! -e "$base/complete" ]; then
    # apt knows which of its sources serves the suite; without one debootstrap has its own default.
    mirror=${MIRROR:-$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
        awk -v suite="$suite" '$1 == suite { print $2; exit }' || true)}
    rm -rf --one-file-system "$base"
    start=$SECONDS
    debootstrap --variant=minbase --include=python3,python3-pip "$suite" "$base" ${mirror:+"$mirror"} \
        >"$work/debootstrap.log" 2>&1 || { tail -5 "$work/debootstrap.log"; fail "debootstrap did not finish"; }
    touch "$base/complete"
    printf 'made a minimal %s in %d s\n' "$suite" $((SECONDS - start))
fi
rm -rf --one-file-system "$root"
cp -a "$base" "$root"
chroot "$root" dpkg --purge python3-venv python3.11-venv >/dev/null 2>&1 || true

# An installer writes these two lines; debootstrap does not.
printf '127.0.0.1 localhost\n::1 localhost\n' >"$root/etc/hosts"
mount -t proc proc "$root/proc" && mounts+=("$root/proc")
for device in null zero random urandom; do
    if [ ! -c "$root/dev/$device" ]; then
        touch "$root/dev/$device"
        mount --bind "/dev/$device" "$root/dev/$device" && mounts+=("$root/dev/$device")
    fi
done

# --- What the host needs to reach a package index -------------------------------------------------
offer() { # offer PATH: the same path inside, read-only where that is possible
    local path=$1
    [ -e "$path" ] && [ ! -e "$root$path" ] || return 0
    if [ -d "$path" ]; then
        mkdir -p "$root$path"
    else
        mkdir -p "$root$(dirname "$path")"
        touch "$root$path"
    fi
    mount --bind "$path" "$root$path"
    mounts+=("$root$path")
}
offer_all() { # offer_all TEXT: every absolute path that a setting mentions
    local word
    for word in $(printf '%s\n' "$1" | tr "'\",=" '    '); do
        case $word in
        # The pages of a local index point to files beside it.
        file:///?*/?*) offer "$(dirname "${word#file://}")" ;;
        /?*) offer "$word" ;;
        esac
    done
}
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
mkdir -p "$root/etc/ssl/certs"
cp -rL /etc/ssl/certs/. "$root/etc/ssl/certs/" 2>/dev/null || true

carried=()
while IFS='=' read -r name value; do
    case $name in
    PIP_USER | PIP_TARGET | PIP_PREFIX | PIP_CACHE_DIR | UV_CACHE_DIR | UV) ;;
    PIP_* | UV_* | SSL_CERT_* | REQUESTS_CA_BUNDLE | HTTP_PROXY | HTTPS_PROXY | ALL_PROXY | NO_PROXY | \
        http_proxy | https_proxy | all_proxy | no_proxy)
        carried+=("$name=$value")
        offer_all "$value"
        ;;
    esac
done < <(env)

home=/srv/ordinary
chroot "$root" useradd --create-home --home-dir "$home" --uid 1000 --shell /bin/sh ordinary
for settings in /etc/pip.conf "$HOME/.config/pip/pip.conf" "$HOME/.pip/pip.conf" /etc/uv/uv.toml "$HOME/.config/uv/uv.toml"; do
    [ -f "$settings" ] || continue
    inside=${settings/#"$HOME"/"$home"}
    mkdir -p "$root$(dirname "$inside")"
    cp -L "$settings" "$root$inside"
    offer_all "$(cat "$settings")"
done

# --- The project ----------------------------------------------------------------------------------
checkout="$home/voice engine"
mkdir -p "$root$checkout"
cd "$project"
if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
    git ls-files -z --cached --others --exclude-standard |
        while IFS= read -r -d '' file; do [ ! -f "$file" ] || printf '%s\0' "$file"; done |
        tar --create --null --files-from=- --file=- | tar --extract --no-same-owner --file=- --directory="$root$checkout"
else
    tar --create --exclude=./.nox --exclude=./.venv --exclude=./dist --exclude=./demo --file=- . |
        tar --extract --no-same-owner --file=- --directory="$root$checkout"
fi
cd /
chown -R 1000:1000 "$root$home" 2>/dev/null || true

as_user() { # as_user COMMAND...: in the checkout, with the carried settings and nothing else
    chroot --userspec=1000:1000 "$root" /usr/bin/env -i "HOME=$home" "PATH=/usr/bin:/bin" "${carried[@]}" \
        "${more[@]}" /bin/sh -c 'cd "$1" && shift && exec "$@"' sh "$checkout" "$@"
}
more=()

# --- The proofs -----------------------------------------------------------------------------------
passed=0
proof() { # proof WORDS COMMAND...: must end with 0
    local words=$1 start=$SECONDS
    shift
    printf '\n--- %s\n' "$words"
    "$@" || fail "$words: exit code $?"
    printf -- '--- %s: %d s\n' "$words" $((SECONDS - start))
    passed=$((passed + 1))
}
refusal() { # refusal WORDS COMMAND...: must end with 2 and one line
    local words=$1 status=0 said
    shift
    said=$("$@" 2>&1) || status=$?
    printf '\n--- %s\n%s\n' "$words" "$said"
    [ "$status" -eq 2 ] || fail "$words: exit code $status instead of 2"
    [ "$(printf '%s\n' "$said" | wc -l)" -eq 1 ] || fail "$words: more than one line"
    passed=$((passed + 1))
}
nothing_else() {
    local tool
    for tool in git gcc cc make curl wget uv nox virtualenv; do
        if as_user /bin/sh -c "command -v $tool"; then return 1; fi
    done
    if as_user python3 -m venv /tmp/venv >/dev/null 2>&1; then return 1; fi
    as_user python3 -c 'import sys, os; print(sys.version); print("user", os.getuid())'
    as_user python3 -m pip --version
}
results() {
    as_user python3 -c '
import json, wave
with wave.open("demo/answer.wav") as answer:
    seconds = answer.getnframes() / answer.getframerate()
    loudest = max(answer.readframes(answer.getnframes()))
lines = [json.loads(line) for line in open("demo/transcript.jsonl", encoding="utf-8")]
print(f"demo/answer.wav: {seconds:.2f} s; demo/transcript.jsonl: {len(lines)} lines")
assert seconds > 0.2 and loudest > 0 and lines, "the conversation left nothing"
'
}
without_network() {
    local status=0
    rm -rf "$root$checkout/demo"
    unshare --net -- chroot --userspec=1000:1000 "$root" /usr/bin/env -i "HOME=$home" \
        "PATH=/usr/bin:/bin" "${carried[@]}" /bin/sh -c 'cd "$1" && exec python3 noxfile.py -s demo' sh "$checkout" ||
        status=$?
    return "$status"
}
interrupted_start() {
    rm "$root$checkout"/.nox/bootstrap-*/complete
    as_user python3 noxfile.py -l >/dev/null
}

proof "nothing but Python and pip" nothing_else
proof "python3 noxfile.py -s demo" as_user python3 noxfile.py -s demo
proof "what the demonstration wrote" results
proof "python3 noxfile.py -s tests" as_user python3 noxfile.py -s tests
proof "the demonstration again, without a network" without_network
proof "what it wrote without a network" results
proof "a bootstrap folder left half made" interrupted_start
rm -rf "$root$checkout/.nox"
more=(PIP_USER=1 PIP_REQUIRE_VIRTUALENV=1)
proof "PIP_USER=1 and PIP_REQUIRE_VIRTUALENV=1" as_user python3 noxfile.py -s demo
more=()
rm -rf "$root$checkout/.nox"
chroot "$root" dpkg --purge --force-depends python3-pip >/dev/null 2>&1
refusal "without pip" as_user python3 noxfile.py -s demo
printf '\n%d proofs passed in %d s\n' "$passed" "$SECONDS"
