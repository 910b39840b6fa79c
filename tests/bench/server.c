/*
 * Copyright: (c) 2026, the mailfleet.starttls authors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * A mail server that does nothing but EHLO, STARTTLS and QUIT, for the bench: one thread, epoll, OpenSSL. It listens on
 * every address of 127.0.0.0/8 at once and on nothing else, and serves certificate (address mod number of certificates),
 * so that a list of targets is a list of addresses.
 *
 *   server --port 25 --certificates DIR [--greeting-delay MS] [--reply-delay MS] [--legacy] [--injectable] [--control]
 *
 * DIR holds files *.pem, each with a private key, its certificate and the intermediate; sorted by name. --reply-delay
 * puts off the reading of whatever arrives, which is what a longer way looks like from the other side. --injectable
 * keeps plaintext that follows STARTTLS and answers it inside TLS, the fault of 2011.
 * --control: a line on standard input is answered with counters as JSON; the end of standard input ends the server.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { INPUT_MAX = 1024, EVENTS_MAX = 256, CERTIFICATES_MAX = 16384 };

struct connection {
    int fd;
    SSL *tls;
    bool greeted, waiting, in_handshake;
    uint64_t began, due; /* ms; due is valid while waiting */
    struct connection *next;
    size_t used;
    char input[INPUT_MAX];
};

/* Connections that wait for the same number of milliseconds, so the first to come is the first to go. */
struct queue {
    uint64_t delay;
    struct connection *first, *last;
};

static struct {
    unsigned long connections, handshakes, ehlo_tls, closed;
    uint64_t milliseconds; /* that the closed connections lasted */
} counters;

static SSL_CTX *contexts[CERTIFICATES_MAX];
static size_t context_count;
static struct queue greetings, replies;
static bool injectable;

static const char GREETING[] = "220 mx.bench.test ESMTP\r\n";
static const char EHLO[] = "250-mx.bench.test\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250-VRFY\r\n250-ETRN\r\n250-STARTTLS\r\n"
                           "250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250-DSN\r\n250-SMTPUTF8\r\n250 CHUNKING\r\n";
static const char EHLO_TLS[] = "250-mx.bench.test\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250-VRFY\r\n250-ETRN\r\n"
                               "250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250-DSN\r\n250-SMTPUTF8\r\n250 CHUNKING\r\n";

static _Noreturn void die(const char *what, const char *subject) {
    fprintf(stderr, "server: %s %s: %s\n", what, subject, errno ? strerror(errno) : "");
    ERR_print_errors_fp(stderr);
    exit(1);
}

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000 + (uint64_t)time.tv_nsec / 1000000;
}

static SSL_CTX *load(const char *path, bool legacy) {
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    errno = 0;
    if (!context || SSL_CTX_use_certificate_chain_file(context, path) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, path, SSL_FILETYPE_PEM) != 1)
        die("cannot use", path);
    if (legacy) {
        SSL_CTX_set_security_level(context, 0);
        SSL_CTX_set_min_proto_version(context, TLS1_VERSION);
    } else {
        SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    }
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF); /* tickets carry the sessions */
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    return context;
}

static int is_pem(const struct dirent *entry) {
    const char *dot = strrchr(entry->d_name, '.');
    return dot && strcmp(dot, ".pem") == 0;
}

static void load_all(const char *directory, bool legacy) {
    struct dirent **entries;
    errno = 0;
    int count = scandir(directory, &entries, is_pem, alphasort);
    if (count < 1 || count > CERTIFICATES_MAX)
        die("no usable certificates in", directory);
    for (int i = 0; i < count; i++) {
        char path[PATH_MAX];
        snprintf(path, sizeof path, "%s/%s", directory, entries[i]->d_name);
        contexts[context_count++] = load(path, legacy);
        free(entries[i]);
    }
    free(entries);
}

static int listen_on(uint16_t port) {
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_ANY)};
    char text[8];
    snprintf(text, sizeof text, "%u", port);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3) < 0) /* all of 127/8, and nobody else gets in */
        die("cannot keep to loopback on port", text);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 4096) < 0)
        die("cannot listen on port", text);
    return fd;
}

static void wait_in(struct queue *queue, struct connection *c) {
    c->waiting = true;
    c->due = now() + queue->delay;
    c->next = NULL;
    if (queue->last)
        queue->last->next = c;
    else
        queue->first = c;
    queue->last = c;
}

static void drop(struct connection *c) {
    counters.closed++;
    counters.milliseconds += now() - c->began;
    SSL_free(c->tls);
    close(c->fd);
    free(c);
}

/* A socket that cannot take a few hundred bytes belongs to a client that does not read: it is given up. */
static bool say(struct connection *c, const char *text) {
    int length = (int)strlen(text);
    if (c->tls && !c->in_handshake)
        return SSL_write(c->tls, text, length) == length;
    return send(c->fd, text, (size_t)length, MSG_NOSIGNAL) == length;
}

static bool is_command(const char *line, const char *verb) {
    size_t length = strlen(verb);
    return strncasecmp(line, verb, length) == 0 && (line[length] == '\0' || line[length] == ' ');
}

static bool start_tls(struct connection *c) {
    struct sockaddr_in local;
    socklen_t length = sizeof local;
    if (!say(c, "220 2.0.0 Ready to start TLS\r\n") || getsockname(c->fd, (struct sockaddr *)&local, &length) < 0)
        return false;
    BIO *input = BIO_new(BIO_s_mem()), *output = BIO_new_socket(c->fd, BIO_NOCLOSE);
    c->tls = SSL_new(contexts[ntohl(local.sin_addr.s_addr) % context_count]);
    if (!c->tls || !input || !output)
        die("out of", "memory");
    SSL_set_bio(c->tls, input, output);
    SSL_set_accept_state(c->tls);
    c->in_handshake = true;
    return true;
}

static bool answer(struct connection *c, const char *line) {
    if (is_command(line, "EHLO")) {
        counters.ehlo_tls += c->tls != NULL;
        return say(c, c->tls ? EHLO_TLS : EHLO);
    }
    if (is_command(line, "STARTTLS"))
        return c->tls ? say(c, "554 5.5.1 Error: TLS already active\r\n") : start_tls(c);
    if (is_command(line, "QUIT")) {
        say(c, "221 2.0.0 Bye\r\n");
        if (c->tls)
            SSL_shutdown(c->tls);
        return false;
    }
    if (is_command(line, "NOOP") || is_command(line, "RSET") || is_command(line, "HELO") || is_command(line, "MAIL"))
        return say(c, "250 2.0.0 Ok\r\n");
    return say(c, "502 5.5.2 Error: command not recognized\r\n");
}

/* Answer the whole lines that have arrived; stop where TLS begins. */
static bool answer_lines(struct connection *c) {
    char *start = c->input, *end = c->input + c->used, *newline;
    bool good = true;
    while (good && !c->in_handshake && (newline = memchr(start, '\n', (size_t)(end - start)))) {
        *newline = '\0';
        if (newline > start && newline[-1] == '\r')
            newline[-1] = '\0';
        good = answer(c, start);
        start = newline + 1;
    }
    if (c->in_handshake && !injectable)
        start = end; /* RFC 3207, 4.2: nothing said in plaintext counts any more */
    c->used = (size_t)(end - start);
    memmove(c->input, start, c->used);
    return good && c->used < INPUT_MAX;
}

static bool wants_more(const SSL *tls, int result) {
    return SSL_get_error(tls, result) == SSL_ERROR_WANT_READ;
}

/* Answer what has arrived inside TLS; false when the connection is over. */
static bool answer_tls(struct connection *c) {
    if (c->in_handshake) {
        int result = SSL_accept(c->tls);
        if (result != 1)
            return wants_more(c->tls, result);
        counters.handshakes++;
        c->in_handshake = false;
        if (!answer_lines(c))
            return false;
    }
    for (;;) {
        int count = SSL_read(c->tls, c->input + c->used, (int)(INPUT_MAX - c->used));
        if (count <= 0)
            return wants_more(c->tls, count);
        c->used += (size_t)count;
        if (!answer_lines(c))
            return false;
    }
}

static bool take(struct connection *c, const char *data, size_t length) {
    if (c->tls)
        return BIO_write(SSL_get_rbio(c->tls), data, (int)length) == (int)length && answer_tls(c);
    if (length > INPUT_MAX - c->used)
        return false;
    memcpy(c->input + c->used, data, length);
    c->used += length;
    return answer_lines(c);
}

/* Where answers take their time, that begins when something arrives, though it be before the last answer was out. */
static void pause_if_something_arrived(struct connection *c) {
    char byte;
    if (recv(c->fd, &byte, 1, MSG_PEEK) >= 0 || errno != EAGAIN)
        wait_in(&replies, c);
}

/* Answer all that has arrived, or, where answers take their time, no more than what was there; false when it is over. */
static bool serve(struct connection *c) {
    char data[16384];
    for (;;) {
        ssize_t count = recv(c->fd, data, sizeof data, 0);
        if (count <= 0)
            return count < 0 && errno == EAGAIN;
        if (!take(c, data, (size_t)count))
            return false;
        if (replies.delay) {
            pause_if_something_arrived(c);
            return true;
        }
    }
}

static void go_on(struct connection *c) {
    ERR_clear_error();
    c->waiting = false;
    if (!c->greeted) {
        c->greeted = true;
        if (!say(c, GREETING)) {
            drop(c);
            return;
        }
        if (replies.delay) {
            pause_if_something_arrived(c);
            return;
        }
    }
    if (!serve(c))
        drop(c);
}

static void accept_all(int listener, int poll) {
    int one = 1, fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct connection *c = calloc(1, sizeof *c);
        struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET, .data.ptr = c};
        if (!c)
            die("out of", "memory");
        c->fd = fd;
        c->began = now();
        counters.connections++;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event) < 0)
            die("cannot watch", "a connection");
        if (greetings.delay)
            wait_in(&greetings, c);
        else
            go_on(c);
    }
}

/* Serve what is due; return the milliseconds until the next one is, or -1. */
static int run_queue(struct queue *queue) {
    uint64_t time = now();
    while (queue->first && queue->first->due <= time) {
        struct connection *c = queue->first;
        queue->first = c->next;
        if (!queue->first)
            queue->last = NULL;
        go_on(c);
    }
    return queue->first ? (int)(queue->first->due - time) : -1;
}

static int run_queues(void) {
    int first = run_queue(&greetings), second = run_queue(&replies);
    return first < 0 || (second >= 0 && second < first) ? second : first;
}

static void report(void) {
    char line[64];
    if (read(STDIN_FILENO, line, sizeof line) <= 0)
        exit(0);
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double cpu = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                 (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    printf("{\"connections\": %lu, \"closed\": %lu, \"seconds\": %.3f, \"handshakes\": %lu, \"ehlo_tls\": %lu, \"cpu\": %.6f}\n",
           counters.connections, counters.closed, (double)counters.milliseconds / 1e3, counters.handshakes, counters.ehlo_tls,
           cpu);
    fflush(stdout);
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        {"port", required_argument, NULL, 'p'},        {"certificates", required_argument, NULL, 'c'},
        {"greeting-delay", required_argument, NULL, 'g'}, {"reply-delay", required_argument, NULL, 'r'},
        {"legacy", no_argument, NULL, 'l'},            {"injectable", no_argument, NULL, 'i'},
        {"control", no_argument, NULL, 'x'},           {0},
    };
    const char *directory = NULL;
    int option, port = 25;
    bool legacy = false, control = false;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'p': port = atoi(optarg); break;
        case 'c': directory = optarg; break;
        case 'g': greetings.delay = strtoul(optarg, NULL, 10); break;
        case 'r': replies.delay = strtoul(optarg, NULL, 10); break;
        case 'l': legacy = true; break;
        case 'i': injectable = true; break;
        case 'x': control = true; break;
        default: return 2;
        }
    }
    if (!directory || port < 1 || port > 65535) {
        fputs("server: --certificates DIR and a --port are needed\n", stderr);
        return 2;
    }
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGPIPE, SIG_IGN);

    load_all(directory, legacy);
    int listener = listen_on((uint16_t)port), poll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &listener}, events[EVENTS_MAX];
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
    if (control) {
        event.data.ptr = &control;
        if (epoll_ctl(poll, EPOLL_CTL_ADD, STDIN_FILENO, &event) < 0)
            die("cannot watch", "standard input");
    }
    printf("ready: port %d, %zu certificates\n", port, context_count);
    fflush(stdout);

    for (;;) {
        int count = epoll_wait(poll, events, EVENTS_MAX, run_queues());
        for (int i = 0; i < count; i++) {
            struct connection *c = events[i].data.ptr;
            if ((void *)c == &listener)
                accept_all(listener, poll);
            else if ((void *)c == &control)
                report();
            else if (c->waiting)
                continue; /* whatever arrived is read when the time is over */
            else if (replies.delay)
                wait_in(&replies, c);
            else
                go_on(c);
        }
    }
}
