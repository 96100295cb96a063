uname -a; ls -la /dev/dma_heap /dev/udmabuf /dev/gpio* ; ls /sys/class/misc; cat /proc/uptime; zgrep -E "DMABUF|UDMABUF" /boot/config* 2>/dev/null
