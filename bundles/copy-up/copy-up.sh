# A program that insists on changing its files, on an image that cannot be changed.

echo "the image: $( (echo >/etc/new) 2>&1 | sed 's/.*: //')"
# shellcheck disable=SC2012  # only how many there are counts, whatever their names
echo "/var/log, a plain tmpfs, has $(ls /var/log | wc -l) files"
echo "/var/lib/app, a tmpfs with tmpcopyup, has: $(ls -m /var/lib/app)"
echo "settings: $(cat /var/lib/app/settings)"
echo 'color = red' >/var/lib/app/settings
echo "settings, changed, and read through a symlink: $(cat /var/lib/app/current)"
