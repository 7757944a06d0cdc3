# Who owns a file of the host, seen from a user namespace, with and without an id-mapped mount.

echo "root in here is user $(sed -n 's/^ *0 *\([0-9]*\) .*/\1/p' /proc/self/uid_map) of the host"
for place in /plain /mapped; do
    if [ -w $place/file ]; then may=yes; else may=no; fi
    printf '  %-14s owned by %s; may be written: %s\n' $place/file "$(stat -c 'user %u, group %g' $place/file)" $may
done
