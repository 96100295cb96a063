# How the machine starts, and a small initrd for its own few devices.
install -D -m 755 -t /opt/vm /opt/recipe/start /opt/recipe/init
install -D -m 644 -t /etc/systemd/system /opt/recipe/vm.service
systemctl --root=/ --quiet enable vm.service
systemctl --root=/ --quiet mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
  fstrim.timer getty@tty1.service systemd-networkd-wait-online.service
systemctl --root=/ --quiet disable mosquitto.service
mkdir -p /payload
echo microedge-vm >/etc/hostname
# Otherwise each boot would be the first one, and begin with enabling everything.
echo 6d6963726f656467652d766d00000000 >/etc/machine-id
# picamera2 allocates from the heap that a Raspberry Pi calls so.
cat >/etc/udev/rules.d/60-dma-heap.rules <<'END'
SUBSYSTEM=="dma_heap", KERNEL=="system", OPTIONS="string_escape=none", SYMLINK+="dma_heap/linux,cma"
SUBSYSTEM=="dma_heap", GROUP="video", MODE="0660"
SUBSYSTEM=="misc", KERNEL=="udmabuf", GROUP="video", MODE="0660"
END
kernel=$(ls /lib/modules)
printf 'MODULES=list\nCOMPRESS=lz4\n' >/etc/initramfs-tools/conf.d/vm
printf 'virtio_pci\nvirtio_blk\next4\n' >/etc/initramfs-tools/modules
mkinitramfs -o /boot/vm.img "$kernel"
