/* A process whose first thread ends at once, while another goes on counting into a file. */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>
static void *count(void *path) {
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0644);
    for (long n = 1;; n++) {
        char line[32];
        int length = sprintf(line, "%ld\n", n);
        pwrite(fd, line, length, 0);
        usleep(1000);
    }
}
int main(int argc, char **argv) {
    pthread_t thread;
    pthread_create(&thread, 0, count, argv[1]);
    pthread_exit(0);
}
