# Counts its visits in the root file system, and looks at three directories that are mounted as one.

say() { printf '%-15s %s\n' "$1" "$2"; }

visits=$(($(cat /var/visits) + 1))
if (echo $visits >/var/visits) 2>/dev/null; then
    if grep -q ' /var ' /proc/mounts; then
        say /var "visit number $visits, noted in a volume"
    elif [ "$(stat -f -c %T /)" = overlayfs ]; then
        say /var "visit number $visits, noted in a layer that is deleted with the container"
    else
        say /var "visit number $visits, noted in the bundle itself"
    fi
else
    say /var "visit number $visits, which cannot be noted: read-only"
fi
for file in /app/*; do
    say "$file" "$(cat "$file")"
done
if (touch /app/new) 2>/dev/null; then
    say /app "can be written"
else
    say /app "cannot be written: none of the three is an upper layer"
fi
