// The least that a guest can do: load the modules that banger's guests load, and power off. What tests/bench/boot.sh
// measures banger against.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(void) {
    FILE *order = fopen("/modules/order", "r");
    char path[256], groups[256];
    while (order && fscanf(order, "%255s %255s", path, groups) == 2) {
        // The groups that a guest without a network needs; see kernel/modules.rs.
        if (!strstr(groups, "mmio") && !strstr(groups, "block") && !strstr(groups, "root") && !strstr(groups, "snapshot") &&
            !strstr(groups, "vsock"))
            continue;
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || syscall(SYS_finit_module, fd, "", 0) != 0) perror(path);
        close(fd);
    }
    reboot(RB_POWER_OFF);
    for (;;) pause();
}
