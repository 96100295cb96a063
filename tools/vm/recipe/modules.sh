# Builds gpio-sim, which Debian's kernels leave out, from the source package of the very same kernel.
kernel=$(ls /lib/modules)
[ -e "/lib/modules/$kernel/updates/microedge-gpio-sim.ko" ] && exit 0
source=linux-source-$(echo "$kernel" | cut -d. -f1,2)
apt-get update -q
work=$(mktemp -d)
cd "$work"
apt-get download -q "$source"
dpkg-deb --fsys-tarfile "$source"_*.deb | tar -xO "./usr/src/$source.tar.xz" |
  tar -xJ --strip-components=3 "$source/drivers/gpio/gpio-sim.c" "$source/kernel/irq/irq_sim.c"
# One module of two files: IRQ_SIM is off too. handle_simple_irq needs a symbol that is not exported.
mv gpio-sim.c gpio_sim_main.c
sed -i 's/handle_simple_irq(irq_to_desc(irqnum))/generic_handle_irq(irqnum)/' irq_sim.c
printf 'obj-m := microedge-gpio-sim.o\nmicroedge-gpio-sim-y := gpio_sim_main.o irq_sim.o\n' >Makefile
make -s -C "/usr/src/linux-headers-$kernel" M="$work" modules
install -D -m 644 -t "/lib/modules/$kernel/updates" microedge-gpio-sim.ko
depmod "$kernel"
cd /
rm -r "$work"
