# Looks at the single files that were mounted.

kind() { printf '  %-20s %s\n' "$1" "$(stat -c %F "$1")$(sed -n "s|^[^ ]* [^ ]* [^ ]* \([^ ]*\) $1 \([^ ,]*\).*|, \2, mounted from \1|p" /proc/self/mountinfo | sed 's|from .*/|from |')"; }

for file in /run/app/settings /run/app/latest /run/app/same /run/zero /usr/bin/whoami; do
    kind $file
done
echo "settings: $(cat /run/app/settings), the same by the symlink: $(cat /run/app/latest)"
echo "written to: $( (echo >/run/app/settings) 2>&1 | sed 's/.*: //')"
echo "read from a device: $(head -c 3 /run/zero | od -An -tx1 | sed 's/^ //')"
echo "whoami says: $(whoami)"
