#!/usr/bin/env bash
# Installs banger on this machine, for the user who runs it:
#
#   curl -fsSL https://releases.thaloco.com/banger/install.sh | bash
#
# downloads the newest release, checks its signature and its digest, says what it will do, asks, and runs `banger system install`
# of it through sudo. --prefix DIR only puts the program there, without root. --from FILE needs no network. --uninstall takes it away.
#
# Or tries banger out on a Debian machine (12 or newer, amd64), from a checkout of its source:
#
#   ./install.sh --try
#
# installs the Debian packages that it needs, builds it, makes a small Debian image and a kernel for its guests, and runs a
# first command in a VM. What is there already is not made again. Nothing is installed outside of the checkout, of banger's
# own directories (or BANGER_ROOT) and, if it is needed, ~/.cargo/bin/vhost-device-vsock, other than Debian's packages.
#
# Nothing is run of a download that was cut off: bash reads all of { }, whose end is the last line, before it begins.
[ -n "${BASH_VERSION:-}" ] || { printf 'install.sh: this is a script for bash; pipe it into bash, not sh\n' >&2; exit 1; }

{

manifest_url=https://releases.thaloco.com/banger/manifest.json
rust_needed=91 # 1.91; Cargo.toml, rust-version
vsock_device=vhost-device-vsock

# The public keys that judge releases: those of src/updater/keys.pem, or of whoever made the release that this script came with.
release_keys() {
    cat <<'KEYS'
-----BEGIN PUBLIC KEY-----
PLACEHOLDER
-----END PUBLIC KEY-----
KEYS
}

say() { printf 'install.sh: %s\n' "$*"; }
die() {
    printf 'install.sh: %s\n' "$*" >&2
    exit 1
}

usage() {
    cat <<'TEXT'
Usage: install.sh [OPTION...]
       ./install.sh --try

Installs banger on this machine: downloads the newest release, verifies it, and runs `banger system install` of it as root.

  --version vX.Y.Z     this release, not the newest
  --owner USER         whose VMs these will be; the user who runs this, if not given
  --prefix DIR         only put the program into DIR/bin, without root and without services
  --from FILE.tar.gz   take this file, without a network; SHA256SUMS and SHA256SUMS.sig beside it are verified
  --unverified         take the FILE of --from even if those are not beside it, so that nothing vouches for it
  --uninstall          remove the installation, or with --prefix the program in DIR/bin; VMs and images stay
  --yes                do not ask; as BANGER_INSTALL_NONINTERACTIVE=1
  --manifest-url URL   where releases are listed
  --pubkey FILE        the public key that judges releases, in PEM, in place of banger's own; for mirrors and tests
  --try                build this checkout on a Debian machine, make what its VMs need, and run a first command in one
  --help               show this

BANGER_INSTALL_PATIENCE: after how many seconds without progress a download is given up (30).
TEXT
}

main() {
    set -euo pipefail
    local words=$# version='' asked='' owner='' prefix='' from='' unverified='' uninstall='' yes='' pubkey=''
    [ "${BANGER_INSTALL_NONINTERACTIVE:-}" != 1 ] || yes=yes
    while [ "$#" -gt 0 ]; do
        case $1 in
        --try) [ "$words" -eq 1 ] || complain "--try is alone"; try_out; return ;;
        -h | --help) usage; return ;;
        --version | --owner | --prefix | --from | --manifest-url | --pubkey)
            [ -n "${2:-}" ] || complain "$1 needs a value"
            case $1 in
            --version) version=$2 asked=yes ;;
            --owner) owner=$2 ;;
            --prefix) prefix=$2 ;;
            --from) from=$2 ;;
            --manifest-url) manifest_url=$2 ;;
            --pubkey) pubkey=$2 ;;
            esac
            shift
            ;;
        --unverified) unverified=yes ;;
        --uninstall) uninstall=yes ;;
        -y | --yes) yes=yes ;;
        *) complain "there is no option $1" ;;
        esac
        shift
    done
    # What letters and digits are is not a matter of language here.
    export LC_ALL=C
    [ -z "$version" ] || is_version "$version" || complain "--version is written like v1.2.3"
    [ -z "$unverified" ] || [ -n "$from" ] || complain "--unverified belongs to --from"
    [ -z "$prefix" ] || [ -z "$owner" ] || complain "--owner and --prefix do not go together; a prefix has no services to own"
    case $prefix in
    '' | /*) ;;
    *) prefix=$PWD/$prefix ;;
    esac
    # As banger itself finds them.
    local bin=${BANGER_ROOT:+$BANGER_ROOT/bin}
    bin=${bin:-/usr/local/bin}
    [ -z "$prefix" ] || bin=${prefix%/}/bin
    if [ -n "$uninstall" ]; then
        [ -z "$from$version" ] || complain "--uninstall takes away what is there; leave --from and --version out"
        uninstall
    else
        install
    fi
}

complain() {
    say "$*; --help shows what there is" >&2
    exit 2
}

install() {
    check_host
    [ -n "$prefix" ] || find_owner
    scratch=$(mktemp -d)
    staged=''
    trap 'rm -rf "$scratch" ${staged:+"$staged"}' EXIT
    find_keys
    local tarball="$scratch/tarball" force='' name='' tarball_url='' sums_url='' signature_url=''
    if [ -n "$from" ]; then
        take_file
    else
        need_key
        choose_release
        look_at_installed "$version"
        announce
        confirm
        download_release
    fi
    unpack
    ask_version
    if [ -n "$from" ]; then
        look_at_installed "$version"
        announce
        confirm
    fi
    if [ -n "$prefix" ]; then
        put_into_prefix
    else
        say "running as root: banger system install --owner $owner${force:+ $force}"
        as_root "$scratch/banger" system install --owner "$owner" ${force:+"$force"} ||
            die "banger system install failed; it says above why. What it changes at all it repairs when it is run again"
        say "banger $version is installed; a first VM: banger vm run"
    fi
}

# As root, through sudo where that is needed.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        # sudo drops the variable, and banger would find other directories than the ones that were announced.
        sudo -- ${BANGER_ROOT:+env "BANGER_ROOT=$BANGER_ROOT"} "$@"
    fi
}

check_host() {
    local tool
    [ "$(uname -s)" = Linux ] || die "this machine runs $(uname -s); banger runs on Linux"
    case $(uname -m) in
    x86_64 | amd64) arch=x86_64 ;;
    *) die "this machine is $(uname -m); banger runs on x86_64 so far" ;;
    esac
    for tool in awk gzip head mktemp openssl tar; do
        command -v "$tool" >/dev/null || die "$tool is missing; install it with this machine's package manager, then run this again"
    done
}

# Whose installation it will be: whoever runs this, not the root that they became for it.
find_owner() {
    if [ "$(id -u)" -ne 0 ]; then
        owner=${owner:-$(id -un)}
        command -v sudo >/dev/null || die "sudo is missing; run this as root, with --owner $owner"
    elif [ -z "$owner" ]; then
        owner=${SUDO_USER:-root}
        [ "$owner" != root ] || die "whose VMs will these be? say it with --owner USER; or --prefix DIR, to install no services"
    fi
    id -u -- "$owner" >/dev/null 2>&1 || die "there is no user $owner"
}

is_version() { [[ $1 =~ ^v(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)(-[0-9A-Za-z.-]+)?$ ]]; }

# is_older A B: whether version A comes before B. Of two previews of the same version none does.
is_older() {
    awk -v a="${1#v}" -v b="${2#v}" 'BEGIN {
        split(a, x, /[.-]/); split(b, y, /[.-]/)
        for (i = 1; i <= 3; i++) if (x[i] + 0 != y[i] + 0) exit !(x[i] + 0 < y[i] + 0)
        exit !(a ~ /-/ && b !~ /-/)
    }'
}

# Writes the keys to $scratch/key.1, key.2, ... A placeholder is none: it stands where a key belongs, and trusts nobody.
find_keys() {
    if [ -n "$pubkey" ]; then
        cat -- "$pubkey" >"$scratch/keys" || die "cannot read the key $pubkey"
    else
        release_keys >"$scratch/keys"
    fi
    grep -q 'PRIVATE KEY-----' "$scratch/keys" && die "$pubkey is a private key; give the public one, and keep this one to yourself"
    awk -v stem="$scratch/key." '
        /^-----BEGIN PUBLIC KEY-----/ { text = ""; inside = 1 }
        inside { text = text $0 "\n" }
        /^-----END PUBLIC KEY-----/ {
            if (inside && text !~ /\nPLACEHOLDER\n/) { count++; file = stem count; printf "%s", text >file; close(file) }
            inside = 0
        }' "$scratch/keys"
}

need_key() {
    [ -e "$scratch/key.1" ] ||
        die "this install.sh has no key to judge releases by; take the one that comes with a release, or name a key with --pubkey FILE; in a checkout, --try builds what is there"
}

# Where a URL leads: "remote" over https, "here" to this machine, nothing for what is no URL.
where_is() {
    local rest host
    case $1 in
    *[!A-Za-z0-9._~:/?\#@!\$\&\'\(\)*+,\;=%\[\]-]*) return 0 ;;
    https://*) rest=${1#https://} ;;
    http://*) rest=${1#http://} ;;
    *) return 0 ;;
    esac
    [ "${#1}" -le 2048 ] || return 0
    host=${rest%%[/?#]*}
    case $host in
    # A password in a URL ends up in logs and errors.
    *@*) return 0 ;;
    '['*) host=${host%%]*}']' ;;
    *) host=${host%%:*} ;;
    esac
    case $host in
    '') return 0 ;;
    localhost | '[::1]') printf 'here' ;;
    *)
        if [[ $host =~ ^127\.[0-9.]+$ ]]; then
            printf 'here'
        elif [[ $1 = https:* ]]; then
            printf 'remote'
        fi
        ;;
    esac
}

# download URL FILE MOST SECONDS: fetches at most MOST bytes, in at most so many seconds.
download() {
    local url=$1 file=$2 most=$3 seconds=$4 patience=${BANGER_INSTALL_PATIENCE:-30} place status=0
    place=$(where_is "$url")
    [ -n "$place" ] || die "$url is no place to download from; it takes an https URL (http is for this machine alone)"
    local protocols='=https'
    [ "$place" = remote ] || protocols='=http,https'
    # Whatever a server says of the length, and however much it sends, head ends it.
    if command -v curl >/dev/null; then
        # -q: no ~/.curlrc, which could let certificates go unchecked; -g: brackets are no pattern of many URLs.
        curl -q -g -fsSL --proto "$protocols" --proto-redir '=https' --max-redirs 5 --connect-timeout "$patience" --max-time "$seconds" \
            --speed-limit 1 --speed-time "$patience" -- "$url" 2>"$scratch/said" | head -c "$((most + 1))" >"$file" || status=$?
    elif wget --version 2>/dev/null | grep -q 'GNU Wget'; then
        # It would follow a redirect to plain http.
        timeout "$seconds" wget -nv --tries=1 --max-redirect=0 --timeout="$patience" -O - -- "$url" 2>"$scratch/said" |
            head -c "$((most + 1))" >"$file" || status=$?
    else
        die "curl is missing; install it, then run this again"
    fi
    [ "$(wc -c <"$file")" -le "$most" ] || die "cannot download $url: it is larger than the $most bytes that it may have"
    [ "$status" -eq 0 ] || die "cannot download $url: $(reason "$status")"
}

# reason STATUS: what the program that downloaded had to say, in a line.
reason() {
    if grep -q 'redirections exceeded' "$scratch/said"; then
        printf 'it leads elsewhere, where only curl is sent; install curl'
    elif [ -s "$scratch/said" ]; then
        tr -cd '\n\40-\176' <"$scratch/said" | grep . | tail -n 1
    else
        printf 'it took too long (status %s)' "$1"
    fi
}

# Reads the list of releases, and takes the one that was asked for, or the newest stable one.
choose_release() {
    local chosen expires min_version url
    say "looking for releases at $manifest_url"
    download "$manifest_url" "$scratch/manifest.json" 1048576 60
    # Its texts are shown where they are refused; nobody has signed them.
    chosen=$(read_manifest "$version" <"$scratch/manifest.json" | tr -cd '\n\40-\176') || die "cannot use $manifest_url: ${chosen:-awk failed}"
    {
        read -r version
        read -r tarball_url
        read -r sums_url
        read -r signature_url
        read -r expires
        read -r min_version
    } <<<"$chosen"
    is_version "$version" || die "cannot use $manifest_url: it calls a release $version"
    name=banger-$version-$arch-linux.tar.gz
    for url in "$tarball_url" "$sums_url" "$signature_url"; do
        case $(where_is "$manifest_url"):$(where_is "$url") in
        remote:remote | here:remote | here:here) ;;
        *) die "cannot use $manifest_url: it names '$url', which is no https URL" ;;
        esac
    done
    # The digest is signed together with this name, so that one release cannot pass for another.
    [ "${tarball_url##*/}" = "$name" ] || die "cannot use $manifest_url: $version is not in a file called $name, but at $tarball_url"
    if [ "$expires" != - ]; then
        case $expires in
        [0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9]Z) ;;
        *) die "cannot use $manifest_url: $version expires at '$expires', which is no time" ;;
        esac
        [[ $(date -u +%Y-%m-%dT%H:%M:%SZ) < $expires ]] ||
            say "warning: what $manifest_url says of $version was meant to be used until $expires; a newer release may be kept from you"
    fi
    if [ "$min_version" != - ]; then
        is_version "$min_version" || die "cannot use $manifest_url: min_version is '$min_version'"
        local here
        here=$(version_of "$bin/banger")
        [ -z "$here" ] || ! is_older "$here" "$min_version" ||
            die "$here is installed, and $version can only follow $min_version; install that first, with --version $min_version"
    fi
}

# read_manifest [VERSION]: prints version, URL of tarball, sums and signature, expiry and least version (or -), a line each; or,
# ending with 1, what is wrong. It reads JSON whole and strictly: what is not understood is refused, unknown fields are not looked at.
read_manifest() {
    awk -v want="$1" '
        function fail(why) { print why; exit 1 }
        # Goes to the next character that is no space; c is it, or empty at the end. No token spans lines.
        function skip() {
            for (; row <= rows; at = 1) {
                for (; at <= length(line[row]); at++) {
                    c = substr(line[row], at, 1)
                    if (c != " " && c != "\t" && c != "\r") return
                }
                row++
            }
            c = ""
        }
        # A string without its quotes. Escapes stay as they are, but for \/: no text that is needed has any.
        function text(   s) {
            for (at++; ; at++) {
                c = substr(line[row], at, 1)
                if (c == "") fail("a string in it does not end")
                if (c < " ") fail("a string in it has a control character")
                if (c == "\"") { at++; return s }
                if (c == "\\") {
                    c = substr(line[row], ++at, 1)
                    if (c == "" || !index("\"\\/bfnrtu", c)) fail("a string in it has an unknown escape")
                    if (c != "/") c = "\\" c
                }
                s = s c
            }
        }
        # Any value; its place is the names that lead to it, with SUBSEP between them, which no string can hold.
        function value(place, depth,   n, key, rest) {
            if (depth > 16) fail("it is nested too deeply")
            if (place in kind) fail("it says something twice")
            skip()
            if (c == "{") {
                kind[place] = "object"; at++; skip()
                if (c == "}") { at++; return }
                for (;;) {
                    skip()
                    if (c != "\"") fail("it is no JSON")
                    key = text(); skip()
                    if (c != ":") fail("it is no JSON")
                    at++; value(place SUBSEP key, depth + 1); skip(); at++
                    if (c == "}") return
                    if (c != ",") fail("it is no JSON")
                }
            } else if (c == "[") {
                kind[place] = "array"; count[place] = 0; at++; skip()
                if (c == "]") { at++; return }
                for (n = 1; ; n++) {
                    value(place SUBSEP n, depth + 1); count[place] = n; skip(); at++
                    if (c == "]") return
                    if (c != ",") fail("it is no JSON")
                }
            } else if (c == "\"") {
                kind[place] = "text"; held[place] = text()
            } else {
                rest = substr(line[row], at)
                if (!match(rest, /^(-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?|true|false|null)/)) fail("it is no JSON")
                kind[place] = "word"; held[place] = substr(rest, 1, RLENGTH); at += RLENGTH
                if (substr(rest, RLENGTH + 1, 1) ~ /[0-9A-Za-z_.+-]/) fail("it is no JSON")
            }
        }
        function needed(place, what) {
            if (kind[place] != "text" || held[place] == "") fail("it does not say " what)
            return held[place]
        }
        function optional(place, what) {
            if (!(place in kind) || (kind[place] == "word" && held[place] == "null")) return "-"
            return needed(place, what)
        }
        { line[NR] = $0 }
        END {
            if (NR == 0) fail("it is empty")
            rows = NR; row = 1; at = 1; top = "$"; skip()
            if (c != "{") fail("it is no JSON object")
            value(top, 0); skip()
            if (c != "") fail("something follows its JSON")
            schema = top SUBSEP "schema_version"
            if (kind[schema] != "word" || held[schema] !~ /^[0-9]+$/) fail("it does not say its schema_version")
            if (held[schema] != "1") fail("its schema_version is " held[schema] ", and this script knows 1; get a newer install.sh")
            if (want == "") want = needed(top SUBSEP "latest_stable", "which release is the latest_stable")
            list = top SUBSEP "releases"
            if (kind[list] != "array") fail("it has no list of releases")
            for (n = 1; n <= count[list]; n++) {
                it = list SUBSEP n
                its = needed(it SUBSEP "version", "the version of one of its releases")
                names = names " " its
                if (its != want) continue
                if (found != "") fail("it has " want " twice")
                found = it
            }
            if (found == "") fail("it has no release " want "; it has" (names == "" ? " none" : names))
            chosen = want
            chosen = chosen "\n" needed(found SUBSEP "tarball_url", "where the tarball of " want " is")
            chosen = chosen "\n" needed(found SUBSEP "sha256sums_url", "where the digests of " want " are")
            chosen = chosen "\n" needed(found SUBSEP "sha256sums_sig_url", "where the signature of " want " is")
            chosen = chosen "\n" optional(found SUBSEP "expires", "when " want " expires")
            print chosen "\n" optional(found SUBSEP "min_version", "what " want " can follow")
        }'
}

download_release() {
    say "downloading $name"
    # The small files first: what they do not vouch for is not worth the large one.
    download "$sums_url" "$scratch/SHA256SUMS" 16384 60
    download "$signature_url" "$scratch/SHA256SUMS.sig" 1024 60
    check_signature "$sums_url"
    digest_of "$name" >/dev/null
    download "$tarball_url" "$tarball" 268435456 3600
    check_digest "$tarball_url"
}

# Takes the file of --from, and what lies beside it.
take_file() {
    local directory
    [ -f "$from" ] || die "there is no file $from"
    name=$(basename -- "$from")
    directory=$(dirname -- "$from")
    [ "$(wc -c <"$from")" -le 268435456 ] || die "$from is larger than a release may be (256 MiB)"
    # A copy that nobody else changes between the check and the installation.
    cat -- "$from" >"$tarball" || die "cannot read $from"
    if [ -e "$directory/SHA256SUMS" ] && [ -e "$directory/SHA256SUMS.sig" ]; then
        head -c 16385 -- "$directory/SHA256SUMS" >"$scratch/SHA256SUMS"
        head -c 1025 -- "$directory/SHA256SUMS.sig" >"$scratch/SHA256SUMS.sig"
        check_signature "$directory/SHA256SUMS"
        check_digest "$from"
    elif [ -n "$unverified" ]; then
        say "warning: SHA256SUMS and SHA256SUMS.sig are not beside $from; nothing vouches for it"
    else
        die "SHA256SUMS and SHA256SUMS.sig are not beside $from, so nothing vouches for it; copy them too, or take it as it is with --unverified"
    fi
}

# check_signature ORIGIN: one of the keys has signed SHA256SUMS (ECDSA over SHA-256, as `cosign sign-blob` does).
check_signature() {
    local key
    need_key
    tr -d ' \t\r\n' <"$scratch/SHA256SUMS.sig" >"$scratch/base64"
    if [ "$(wc -c <"$scratch/base64")" -le 1024 ] && openssl base64 -d -A -in "$scratch/base64" -out "$scratch/der" 2>/dev/null; then
        for key in "$scratch"/key.*; do
            # Of a key that openssl cannot read it says here that it verifies nothing.
            ! openssl dgst -sha256 -verify "$key" -signature "$scratch/der" "$scratch/SHA256SUMS" >/dev/null 2>&1 || return 0
        done
    fi
    die "the signature of $1 is not by banger's key, so nothing of it is used; if it has just been published, try again later"
}

# digest_of NAME: the digest that SHA256SUMS has for the file. Two for one name are none.
digest_of() {
    awk -v name="$1" '
        NF == 2 && $1 ~ /^[0-9A-Fa-f]+$/ && length($1) == 64 && ($2 == name || $2 == "*" name) { digest = tolower($1); n++ }
        END { if (n == 1) print digest; exit n != 1 }' "$scratch/SHA256SUMS" ||
        die "SHA256SUMS has no line for $1; a release's file keeps its name"
}

# check_digest ORIGIN
check_digest() {
    local wanted found
    wanted=$(digest_of "$name") || exit 1
    found=$(openssl dgst -sha256 -r <"$tarball") || die "openssl cannot make a digest of $1"
    [ "${found%% *}" = "$wanted" ] || die "the digest of $1 is not the one that SHA256SUMS has for it; it is damaged, or another file"
}

# A release's tarball holds one regular file, banger. Only its content is taken: no path, no mode, no owner.
unpack() {
    local names modes status=0 tar="$scratch/tar"
    gzip -dc <"$tarball" 2>/dev/null | head -c 536875009 >"$tar" || status=$?
    [ "$(wc -c <"$tar")" -le 536875008 ] || die "$name holds more than a release may (512 MiB)"
    [ "$status" -eq 0 ] || die "$name is no whole tarball"
    rm -f "$tarball"
    names=$(tar -tf "$tar" 2>/dev/null) || die "$name is no whole tarball"
    modes=$(tar -tvf "$tar" 2>/dev/null) || die "$name is no whole tarball"
    [ "$names" = banger ] || die "$name holds something else than one file banger"
    case $modes in
    -*) ;;
    *) die "banger in $name is no regular file" ;;
    esac
    # A sparse member is larger than what holds it.
    tar -xOf "$tar" banger 2>/dev/null | head -c 536870913 >"$scratch/banger" || status=$?
    [ "$(wc -c <"$scratch/banger")" -le 536870912 ] || die "$name holds more than a release may (512 MiB)"
    [ "$status" -eq 0 ] || die "$name cannot be unpacked; is the disk of $scratch full?"
    rm -f "$tar"
    chmod 755 "$scratch/banger"
}

# version_of FILE: the version that a banger says it is; nothing for what is none.
version_of() {
    [ -x "$1" ] || return 0
    ("$1" --version </dev/null 2>/dev/null || true) | sed -n '1s/^banger \(v[0-9][0-9A-Za-z.-]*\) (commit .*)$/\1/p'
}

# The program is what was asked for, by its own word.
ask_version() {
    local said
    said=$(version_of "$scratch/banger")
    [ -n "$said" ] || die "the program in $name does not run here, or is no banger; if $scratch may not run programs, set TMPDIR to a directory that may"
    [ -z "$version" ] || [ "$said" = "$version" ] || die "the program in $name is $said, not $version"
    case $name in
    banger-v*-linux.tar.gz) [ "$name" = "banger-$said-$arch-linux.tar.gz" ] || die "the program in $name is $said, or for another machine" ;;
    esac
    version=$said
}

# look_at_installed VERSION: says what is there already, and refuses to replace what is not banger, and what is newer unless this very
# version was asked for.
look_at_installed() {
    local there
    [ -e "$bin/banger" ] || return 0
    there=$(version_of "$bin/banger")
    if [ -z "$there" ]; then
        [ -z "$prefix" ] || die "$bin/banger is something else than banger; move it away, or use another --prefix"
        say "$bin/banger is there and does not run; $1 will replace it"
    elif [ "$there" = "$1" ]; then
        say "$there is installed already; it will be installed again"
    elif is_older "$1" "$there"; then
        [ -n "$asked$from" ] ||
            die "$there is installed, which is newer than $1; to go back nevertheless, name it with --version $1"
        say "$there is installed, which is newer; $1 will replace it all the same"
        force=--force
    else
        say "$there is installed; $1 will replace it"
        [ -n "$prefix" ] || say "\`sudo banger update\` does that too, keeps $there to go back to, and undoes an update that fails"
    fi
}

# What will be done, and why as root.
announce() {
    local source
    source="download $name, and check its signature and digest"
    [ -z "$from" ] || source="take the program in $from"
    if [ -n "$prefix" ]; then
        cat <<TEXT

This will
  - $source,
  - put banger $version into $bin, with the links bangerd, bangerd-root and banger-vsock beside it.
No root is needed, and nothing is written elsewhere. Without root, VMs have no network of their own.

TEXT
        return
    fi
    local how='as root'
    [ "$(id -u)" -eq 0 ] || how='as root, through sudo'
    cat <<TEXT

This will
  - $source,
  - run $how: banger system install --owner $owner${force:+ $force}
which puts
  - the program into $bin, and its completions where shells look for them,
  - two services into /etc/systemd/system, and starts them: bangerd, which $owner's VMs belong to and which runs as $owner,
    and bangerd-root, which does the little that VMs need root for: their network's bridge, firewall and names, and their jails,
  - what they keep into /etc/banger, /var/lib/banger, /var/lib/banger-root and /var/cache/banger.
Root is needed to write there, and to start services. \`banger system uninstall\` takes all of it away again.

TEXT
}

# Asks on the terminal, since stdin may be this very script.
confirm() {
    local answer
    [ -z "$yes" ] || return 0
    (: <>/dev/tty) 2>/dev/null || die "there is no terminal to ask on; run this with --yes, or with BANGER_INSTALL_NONINTERACTIVE=1, if you agree"
    printf 'Go on? [y/N] ' >/dev/tty
    read -r answer </dev/tty || answer=''
    case $answer in
    [yY] | [yY][eE][sS]) ;;
    *) die "nothing has been changed" ;;
    esac
}

put_into_prefix() {
    local link
    mkdir -p -- "$bin" || die "cannot make $bin"
    for link in bangerd bangerd-root banger-vsock; do
        [ ! -e "$bin/$link" ] || [ "$(readlink "$bin/$link")" = banger ] || die "$bin/$link is something else than banger's; move it away, or use another --prefix"
    done
    # Beside its place first: whoever runs it meanwhile has the old one or the new one, whole.
    staged=$(mktemp "$bin/.banger.XXXXXX") || die "cannot write to $bin"
    { cat "$scratch/banger" >"$staged" && chmod 755 "$staged" && mv -f "$staged" "$bin/banger"; } || die "cannot write $bin/banger"
    staged=''
    for link in bangerd bangerd-root banger-vsock; do
        ln -sfn banger "$bin/$link" || die "cannot write $bin/$link"
    done
    say "banger $version is in $bin"
    case ":$PATH:" in
    *":$bin:"*) say "a first VM: banger vm run" ;;
    *) printf '\nTo call it banger, put it on the PATH; then, for a first VM, banger vm run:\n\n    export PATH="%s:%s"\n\n' "$bin" "\$PATH" ;;
    esac
}

uninstall() {
    local file
    if [ -z "$prefix" ]; then
        [ -x "$bin/banger" ] || die "there is no $bin/banger to uninstall"
        [ "$(id -u)" -eq 0 ] || command -v sudo >/dev/null || die "sudo is missing; run this as root"
        say "this will run, as root: $bin/banger system uninstall"
        say "root is needed to stop the services and to remove their files; VMs and images stay in /var/lib/banger"
        confirm
        as_root "$bin/banger" system uninstall || die "banger system uninstall failed; it says above why"
        return
    fi
    [ -e "$bin/banger" ] || die "there is no $bin/banger to uninstall"
    [ -n "$(version_of "$bin/banger")" ] || die "$bin/banger is something else than banger, and stays"
    say "this will remove banger from $bin; VMs and images stay where they are, and a daemon goes on until its \`banger daemon stop\`"
    confirm
    for file in bangerd bangerd-root banger-vsock; do
        [ "$(readlink "$bin/$file")" != banger ] || rm -f -- "$bin/$file"
    done
    rm -f -- "$bin/banger"
    # Where nothing else is, nothing is left.
    rmdir -- "$bin" "$prefix" 2>/dev/null || true
    say "removed"
}

# From here on: --try.

# quietly MESSAGE COMMAND...: runs the command; if it fails, shows the end of what it said, and ends with the message.
quietly() {
    local message=$1
    shift
    "$@" >"$scratch/log" 2>&1 || {
        tail -n 20 "$scratch/log" >&2
        die "$message"
    }
}

check_machine() {
    [ -e src/main.rs ] || die "this is not banger's source; run it from a checkout: git clone it, then ./install.sh --try"
    local arch tool
    for tool in apt-get apt-cache dpkg dpkg-query; do
        command -v "$tool" >/dev/null ||
            die "this is not a Debian machine; on others, install QEMU, build with cargo, and import a kernel and an image by hand (README.md)"
    done
    arch=$(dpkg --print-architecture)
    [ "$arch" = amd64 ] || die "this machine is $arch; banger runs on amd64 so far"
    # shellcheck source=/dev/null
    codename=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
    [ -n "$codename" ] || die "/etc/os-release has no VERSION_CODENAME; is this Debian 12 or newer?"
    if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
        die "packages are installed as root; run this as root, or install sudo"
    fi
}

is_installed() { dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q 'ok installed'; }

# The package lists are fetched once, when something is to be had from them.
update_lists() {
    [ -z "${lists_updated:-}" ] || return 0
    say "updating the package lists"
    quietly "apt-get update failed; check this machine's network and /etc/apt" as_root apt-get update
    lists_updated=yes
}

install_packages() {
    local package missing=() firewall=()
    # Root's VMs have a network of their own, behind a firewall.
    [ "$(id -u)" -ne 0 ] || firewall=(nftables)
    for package in qemu-system-x86 mmdebstrap gcc libc6-dev make xz-utils ca-certificates "${firewall[@]}" "$@"; do
        is_installed "$package" || missing+=("$package")
    done
    [ "${#missing[@]}" -gt 0 ] || return 0
    update_lists
    say "installing ${missing[*]}"
    quietly "apt-get could not install ${missing[*]}" \
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
}

# The minor number of the Rust that builds here; nothing without one.
rust_minor() { (rustc --version 2>/dev/null || true) | sed -n 's/^rustc 1\.\([0-9]*\)\..*/\1/p'; }

is_new_enough() { [ "${1:-0}" -ge "$rust_needed" ] && command -v cargo >/dev/null; }

find_rust() {
    export PATH="$PATH:$HOME/.cargo/bin"
    is_new_enough "$(rust_minor)" && return
    if ! command -v rustup >/dev/null; then
        update_lists
        apt-cache show rustup >/dev/null 2>&1 ||
            die "Rust 1.$rust_needed or newer is needed; install it from https://rustup.rs, then run this again"
        install_packages rustup
    fi
    say "installing Rust's stable toolchain"
    quietly "rustup could not install the stable toolchain" rustup toolchain install stable --profile minimal
    export RUSTUP_TOOLCHAIN=stable
    hash -r
    is_new_enough "$(rust_minor)" ||
        die "Rust 1.$rust_needed or newer is needed, and $(command -v rustc || echo none) is older; put rustup's first on the PATH, then run this again"
}

# QEMU's vsock is the kernel's, where this user may open it, or else a program.
find_vsock() {
    # Opened to be read and written, `<>` would make a file where there is no device.
    if [ -c /dev/vhost-vsock ] && (: <>/dev/vhost-vsock) 2>/dev/null; then return; fi
    if command -v "$vsock_device" >/dev/null; then return; fi
    say "building $vsock_device, since this machine's /dev/vhost-vsock cannot be used (a few minutes)"
    quietly "cargo could not build $vsock_device" cargo install "$vsock_device" --locked
}

build() {
    say "building banger (a few minutes, the first time)"
    local host name
    host=$(rustc -vV | sed -n 's/^host: //p')
    cargo build --release --locked --quiet || die "banger does not build; its errors are above"
    bin=$(realpath "${CARGO_TARGET_DIR:-target}/$host/release")
    banger=$bin/banger
    [ -x "$banger" ] || die "cargo made no $banger; is build.target or CARGO_BUILD_TARGET set?"
    for name in bangerd bangerd-root banger-vsock; do
        ln -sfn banger "$bin/$name"
    done
}

import_kernel() {
    local package
    package=$(kernel_package)
    if [ -z "$package" ]; then
        update_lists
        package=$(kernel_package)
    fi
    [ -n "$package" ] || die "apt knows no kernel for clouds (linux-image-cloud-amd64); is Debian's main section in /etc/apt?"
    if "$banger" kernel show "${package#linux-image-}" >/dev/null 2>&1; then
        say "the kernel ${package#linux-image-} is there"
        return
    fi
    say "downloading $package"
    (cd "$scratch" && quietly "apt-get could not download $package; try again after apt-get update" apt-get download "$package")
    say "importing the kernel"
    "$banger" kernel import --deb "$(echo "$scratch"/linux-image-*.deb)" || die "the kernel could not be imported"
}

# The package that Debian's newest kernel for clouds is in.
kernel_package() {
    apt-cache depends linux-image-cloud-amd64 2>/dev/null | awk '/Depends: linux-image-/ {print $2; exit}'
}

# Called debian, it is what `vm run` takes without --image, as long as nobody has pulled debian-bookworm.
import_image() {
    if "$banger" image show debian >/dev/null 2>&1; then
        say "the image debian is there"
        return
    fi
    say "making an image of Debian $codename (a minute)"
    as_root mmdebstrap --quiet --variant=minbase "$codename" - 2>"$scratch/log" | "$banger" image import - --name debian || {
        tail -n 20 "$scratch/log" >&2
        die "the image could not be made"
    }
}

first_run() {
    say "running: banger vm run --rm --image debian -- uname -a"
    "$banger" vm run --rm --image debian -- uname -a || die "the first VM did not do it; see README.md, Troubleshooting"
    say "it works; a shell in a new VM:"
    printf '\n    %s vm run\n\n' "$banger"
    case ":$PATH:" in
    *":$bin:"*) ;;
    *) printf 'To call it banger, put it on the PATH:\n\n    export PATH="%s:%s"\n\n' "$bin" "\$PATH" ;;
    esac
}

try_out() {
    cd "$(dirname "$0")"
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    check_machine
    install_packages
    find_rust
    find_vsock
    build
    import_kernel
    import_image
    first_run
}

main "$@"; exit; }
