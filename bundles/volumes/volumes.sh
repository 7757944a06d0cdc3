# Counts its visits in /data and looks at /srv/site; what becomes of that is up to the flags of `pyrunc run`.

say() { printf '%-10s %s\n' "$1" "$2"; }

# Where a mount point's files are on the host: the root field of its last line in the kernel's table.
from() { sed -n "s|^[^ ]* [^ ]* [^ ]* \([^ ]*\) $1 .*|\1|p" /proc/self/mountinfo | tail -n 1; }

visits=$(($(cat /data/visits 2>/dev/null || echo 0) + 1))
if (echo $visits >/data/visits) 2>/dev/null; then
    say /data "visit number $visits, noted in $(from /data)"
else
    say /data "visit number $visits, which cannot be noted: read-only"
fi
if (touch /srv/site/edited) 2>/dev/null; then
    say /srv/site "$(ls -m /srv/site), kept in $(from /srv/site)"
else
    say /srv/site "$(ls -m /srv/site), read-only"
fi
