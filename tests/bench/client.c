/*
 * Copyright: (c) 2026, the mailfleet.starttls authors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The yardstick of the bench: the handshake test in bare C, one thread, epoll, OpenSSL. For each target connect, 220,
 * EHLO, STARTTLS, handshake with the chain verified, EHLO, QUIT.
 *
 *   client --ca FILE [--concurrency N] [--timeout SECONDS] < TARGETS      a line of TARGETS: ADDRESS PORT NAME
 *
 * The last line of the output is JSON; the exit status is 1 unless every target completed.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { INPUT_MAX = 4096, EVENTS_MAX = 256 };
enum stage { CONNECT, GREETING, EHLO, STARTTLS, TLS, EHLO_TLS };

struct target {
    struct sockaddr_in address;
    char name[256];
};

struct connection {
    int fd;
    enum stage stage;
    SSL *tls;
    const struct target *target;
    size_t used;
    char input[INPUT_MAX];
};

static struct target *targets;
static size_t target_count, next_target, finished, completed;
static int poller;
static SSL_CTX *context;

static _Noreturn void die(const char *what) {
    fprintf(stderr, "client: %s: %s\n", what, errno ? strerror(errno) : "");
    ERR_print_errors_fp(stderr);
    exit(2);
}

static void read_targets(void) {
    char address[64];
    struct target one = {.address.sin_family = AF_INET};
    unsigned port;
    size_t space = 0;
    while (scanf("%63s %u %255s", address, &port, one.name) == 3) {
        one.address.sin_port = htons((unsigned short)port);
        if (inet_pton(AF_INET, address, &one.address.sin_addr) != 1)
            die(address);
        if (target_count == space) {
            space = space ? 2 * space : 1024;
            targets = realloc(targets, space * sizeof *targets);
            if (!targets)
                die("memory");
        }
        targets[target_count++] = one;
    }
}

static void start_next(void);

static void end(struct connection *c, bool good) {
    if (good)
        completed++;
    else if (finished - completed < 5) {
        char text[INET_ADDRSTRLEN];
        inet_ntop(AF_INET, &c->target->address.sin_addr, text, sizeof text);
        fprintf(stderr, "client: %s failed in stage %d: %s\n", text, c->stage,
                c->tls ? X509_verify_cert_error_string(SSL_get_verify_result(c->tls)) : strerror(errno));
    }
    finished++;
    SSL_free(c->tls);
    close(c->fd);
    free(c);
    start_next();
}

static void start_next(void) {
    if (next_target == target_count)
        return;
    const struct target *target = &targets[next_target++];
    struct connection *c = calloc(1, sizeof *c);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
    int one = 1;
    if (!c)
        die("memory");
    c->target = target;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        die("socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(c->fd, (const struct sockaddr *)&target->address, sizeof target->address) < 0 && errno != EINPROGRESS)
        die("connect");
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event) < 0)
        die("epoll");
}

static bool say(struct connection *c, const char *text) {
    int length = (int)strlen(text);
    return c->tls ? SSL_write(c->tls, text, length) == length
                  : send(c->fd, text, (size_t)length, MSG_NOSIGNAL) == length;
}

/* The code of the reply in the buffer once all of its lines are there, 0 before, -1 if it is none. */
static int reply(struct connection *c) {
    char *line = c->input, *newline;
    size_t left = c->used;
    while ((newline = memchr(line, '\n', left))) {
        if (newline - line < 4)
            return -1;
        if (line[3] == ' ')
            return atoi(line);
        left -= (size_t)(newline + 1 - line);
        line = newline + 1;
    }
    return left < INPUT_MAX && c->used < INPUT_MAX ? 0 : -1;
}

/* What follows a whole reply; false if it is the wrong one. */
static bool advance(struct connection *c, int code) {
    c->input[c->used < INPUT_MAX ? c->used : INPUT_MAX - 1] = '\0';
    bool offered = c->stage == EHLO && strstr(c->input, "STARTTLS");
    c->used = 0;
    switch (c->stage) {
    case GREETING:
        c->stage = EHLO;
        return code == 220 && say(c, "EHLO client.bench.test\r\n");
    case EHLO:
        c->stage = STARTTLS;
        return code == 250 && offered && say(c, "STARTTLS\r\n");
    case STARTTLS:
        c->stage = TLS;
        c->tls = SSL_new(context);
        if (code != 220 || !c->tls || SSL_set_fd(c->tls, c->fd) != 1)
            return false;
        SSL_set_connect_state(c->tls);
        return SSL_set_tlsext_host_name(c->tls, c->target->name) == 1;
    default:
        return false;
    }
}

static void drive(struct connection *c) {
    ERR_clear_error();
    if (c->stage == CONNECT) {
        int error = 0;
        socklen_t length = sizeof error;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length);
        if (error) {
            errno = error;
            end(c, false);
            return;
        }
        c->stage = GREETING;
    }
    for (;;) {
        if (c->stage == TLS) {
            int result = SSL_connect(c->tls);
            if (result != 1) {
                if (SSL_get_error(c->tls, result) != SSL_ERROR_WANT_READ)
                    end(c, false);
                return;
            }
            c->stage = EHLO_TLS;
            if (!say(c, "EHLO client.bench.test\r\n")) {
                end(c, false);
                return;
            }
        }
        int count, space = (int)(INPUT_MAX - c->used);
        bool later;
        if (c->tls) {
            count = SSL_read(c->tls, c->input + c->used, space);
            later = count <= 0 && SSL_get_error(c->tls, count) == SSL_ERROR_WANT_READ;
        } else {
            count = (int)recv(c->fd, c->input + c->used, (size_t)space, 0);
            later = count < 0 && errno == EAGAIN;
        }
        if (later)
            return;
        if (count <= 0) {
            end(c, false);
            return;
        }
        c->used += (size_t)count;
        int code = reply(c);
        if (code && c->stage == EHLO_TLS) {
            end(c, code == 250 && say(c, "QUIT\r\n"));
            return;
        }
        if (code && !advance(c, code)) {
            end(c, false);
            return;
        }
    }
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        {"ca", required_argument, NULL, 'a'},
        {"concurrency", required_argument, NULL, 'c'},
        {"timeout", required_argument, NULL, 't'},
        {0},
    };
    const char *ca = NULL;
    int option, timeout = 30;
    size_t concurrency = 200;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'a': ca = optarg; break;
        case 'c': concurrency = strtoul(optarg, NULL, 10); break;
        case 't': timeout = atoi(optarg); break;
        default: return 2;
        }
    }
    errno = 0;
    context = SSL_CTX_new(TLS_client_method());
    if (!ca || !context || SSL_CTX_load_verify_file(context, ca) != 1)
        die("--ca FILE with the roots to trust");
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_read_ahead(context, 1);
    signal(SIGPIPE, SIG_IGN);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    read_targets();
    poller = epoll_create1(EPOLL_CLOEXEC);

    struct timespec began, ended;
    clock_gettime(CLOCK_MONOTONIC, &began);
    while (next_target < target_count && next_target < concurrency)
        start_next();
    while (finished < target_count) {
        struct epoll_event events[EVENTS_MAX];
        int count = epoll_wait(poller, events, EVENTS_MAX, timeout * 1000);
        if (count == 0) {
            fprintf(stderr, "client: nothing happened for %d s\n", timeout);
            break;
        }
        for (int i = 0; i < count; i++)
            drive(events[i].data.ptr);
    }
    clock_gettime(CLOCK_MONOTONIC, &ended);
    printf("{\"targets\": %zu, \"completed\": %zu, \"seconds\": %.3f}\n", target_count, completed,
           (double)(ended.tv_sec - began.tv_sec) + (double)(ended.tv_nsec - began.tv_nsec) / 1e9);
    return completed == target_count && target_count ? 0 : 1;
}
