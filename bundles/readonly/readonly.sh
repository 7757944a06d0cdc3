# Tries to write to a directory, and to the file system mounted below it, by three ways that lead there.

try() {
    if (echo "by way of $1" >"$1/note") 2>/dev/null; then
        printf '  %-10s written\n' "$1"
    else
        printf '  %-10s refused\n' "$1"
    fi
}

for way in /data /ro /rro; do
    echo "$way is $(sed -n "s|^[^ ]* [^ ]* [^ ]* [^ ]* $way \([^ ,]*\).*|\1|p" /proc/self/mountinfo)"
    try $way
    try $way/disk
done
echo "the last word in /data/disk/note: $(cat /data/disk/note)"
