# Serves one connection of ssh, on stdin and stdout, with the sshd that this image has.
# $1: the caller's public key; $2: a name for it.
# The first line of stdout says what comes: "ready KIND KEY", the host key, and then SSH; "none"; or "broken WHY".
umask 022
for sshd in "$(command -v sshd)" /usr/sbin/sshd /usr/local/sbin/sshd /sbin/sshd /usr/bin/sshd; do
    # It starts itself again, for which it wants its whole path.
    case $sshd in /*) [ -x "$sshd" ] && break ;; esac
    sshd=
done
if [ -z "$sshd" ]; then echo none; exit; fi
broken() { echo "broken $1"; exit; }

kept=/var/lib/banger run=/run/banger
mkdir -p "$kept" "$run" /run/sshd || broken "it cannot make $kept, $run and /run/sshd"

# Linked into its place, so that of two at once one key counts; a file without content is what a power cut leaves.
key=$kept/ssh_host_ed25519_key new=$kept/new.$$
if ! [ -s "$key" ]; then
    rm -f "$new" "$new.pub"
    [ -e "$key" ] && rm -f "$key"
    ssh-keygen -q -t ed25519 -N '' -C banger -f "$new" </dev/null >&2 || broken "ssh-keygen makes no host key"
    ln "$new" "$key" 2>/dev/null
    rm -f "$new" "$new.pub"
fi
if ! [ -s "$key.pub" ]; then
    ssh-keygen -y -f "$key" </dev/null >"$new.pub" && mv -f "$new.pub" "$key.pub" || broken "it cannot keep its host key"
fi

# What the image has put on its PATH is there for ssh as well.
case $PATH in
*[\"\\]*) options= ;;
*) options="environment=\"PATH=$PATH\" " ;;
esac
{ printf '%s%s\n' "$options" "$1" >"$run/$2.$$" && mv -f "$run/$2.$$" "$run/$2"; } || broken "it cannot write into $run"

# Options count before those of the image's sshd_config, which decides the rest: subsystems, PAM, the environment.
[ -r /etc/ssh/sshd_config ] && config=/etc/ssh/sshd_config || config=/dev/null
read -r kind host_key _ <"$key.pub"
echo "ready $kind $host_key"
# Modes of homes do not matter: who comes this way is root already.
exec "$sshd" -i -e -f "$config" -h "$key" -o LogLevel=ERROR -o UseDNS=no -o StrictModes=no \
    -o PubkeyAuthentication=yes -o AuthenticationMethods=publickey -o PasswordAuthentication=no \
    -o "AuthorizedKeysFile=$run/$2 .ssh/authorized_keys" -o PermitUserEnvironment=yes -o PermitRootLogin=without-password \
    -o AllowTcpForwarding=yes -o AllowAgentForwarding=yes
