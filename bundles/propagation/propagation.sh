# Shows how four binds of one directory are connected to the host, and what they hear of a mount made there.

WAIT=60

# What the kernel has noted about a mount: "shared:N" is its peer group, "master:N" the one it listens to.
row() { sed -n "s|^[^ ]* [^ ]* [^ ]* [^ ]* $1 [^ ]* \(.*\)- .*|\1|p" /proc/self/mountinfo; }

for place in /shared /slave /private /unbindable; do
    printf '  %-12s %s\n' $place "$(row $place)"
done
case $(row /shared)$(row /slave) in
*master:*) ;;
*)
    echo 'The directory is private on the host, so there is nothing to hear. Make it shared and try again:'
    echo '  sudo mount --bind bundles/propagation/source bundles/propagation/source'
    echo '  sudo mount --make-shared bundles/propagation/source'
    exit 0
    ;;
esac
echo 'Now mount something there, from another terminal:'
echo '  sudo mount -t tmpfs none bundles/propagation/source/disk'
while [ $WAIT -gt 0 ] && ! grep -q ' /shared/disk ' /proc/self/mountinfo; do
    WAIT=$((WAIT - 1))
    sleep 1
done
[ $WAIT -gt 0 ] || { echo 'Nothing came.'; exit 0; }
for place in /shared /slave /private /unbindable; do
    if grep -q " $place/disk " /proc/self/mountinfo; then heard=yes; else heard=no; fi
    printf '  %-12s heard of it: %s\n' $place $heard
done
