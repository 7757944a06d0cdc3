# What the first container runs: it looks around and says what it sees. Plain sh, so that it needs nothing but /usr.

say() { printf '  %-15s %s\n' "$1" "$2"; }

# try FILE: write to it and repeat what the kernel said.
try() {
    if answer=$( (echo written >"$1") 2>&1 ); then
        say "$1" "written: a tmpfs that lives and ends with the container"
    else
        say "$1" "refused: ${answer##*: }"
    fi
}

set -- /proc/[0-9]*
echo 'Hello from a container. From in here:'
say 'host name' "$(hostname)"
say 'process' "number $$, of $# there are"
say 'user' "$(id -un), but its capabilities are only 0x$(sed -n 's/^CapEff:\t0*//p' /proc/self/status)"
say 'network' "$(sed -n 's/^ *\([^:|]*\):.*/\1/p' /proc/net/dev | tr '\n' ' ')and nothing else"
try /usr/new-file
try /new-file
try /tmp/new-file

echo 'The mounts, as the kernel lists them:'
while read -r _ target type options _; do
    case $target in
    /proc/* | /sys/*) ;; # the masked and read-only parts of proc and sys
    *) say "$target" "$type $(echo "$options" | cut -d, -f1-4)" ;;
    esac
done </proc/self/mounts
