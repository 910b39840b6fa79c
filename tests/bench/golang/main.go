// Copyright: (c) 2026, the mailfleet.starttls authors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

// The handshake test in Go, with nothing but its standard library: it stands for the scanners that are written in Go, which
// use the same crypto/tls. Targets and output are those of the C client:
//
//	client-go -ca FILE [-concurrency N] < TARGETS      a line of TARGETS: ADDRESS PORT NAME
package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

type target struct{ address, name string }

// reply reads one reply of any number of lines and returns it if it has the code.
func reply(reader *bufio.Reader, code string) (string, error) {
	var lines strings.Builder
	for {
		line, err := reader.ReadString('\n')
		if err != nil {
			return "", err
		}
		if len(line) < 4 || line[:3] != code {
			return "", errors.New("unexpected reply " + strings.TrimSpace(line))
		}
		lines.WriteString(line)
		if line[3] == ' ' {
			return lines.String(), nil
		}
	}
}

// command sends one line and reads the reply to it.
func command(connection net.Conn, reader *bufio.Reader, line, code string) (string, error) {
	if _, err := connection.Write([]byte(line + "\r\n")); err != nil {
		return "", err
	}
	return reply(reader, code)
}

func test(one target, roots *x509.CertPool) error {
	connection, err := net.DialTimeout("tcp", one.address, 15*time.Second)
	if err != nil {
		return err
	}
	defer connection.Close()
	if err := connection.SetDeadline(time.Now().Add(60 * time.Second)); err != nil {
		return err
	}
	reader := bufio.NewReaderSize(connection, 1024)
	if _, err := reply(reader, "220"); err != nil {
		return err
	}
	capabilities, err := command(connection, reader, "EHLO client.bench.test", "250")
	if err != nil {
		return err
	}
	if !strings.Contains(capabilities, "STARTTLS") {
		return errors.New("STARTTLS is not offered")
	}
	if _, err := command(connection, reader, "STARTTLS", "220"); err != nil {
		return err
	}
	secure := tls.Client(connection, &tls.Config{RootCAs: roots, ServerName: one.name, MinVersion: tls.VersionTLS12})
	if err := secure.Handshake(); err != nil {
		return err
	}
	if _, err := command(secure, bufio.NewReaderSize(secure, 1024), "EHLO client.bench.test", "250"); err != nil {
		return err
	}
	_, err = secure.Write([]byte("QUIT\r\n"))
	return err
}

func readTargets() (targets []target) {
	for scanner := bufio.NewScanner(os.Stdin); scanner.Scan(); {
		fields := strings.Fields(scanner.Text())
		if len(fields) == 3 {
			targets = append(targets, target{net.JoinHostPort(fields[0], fields[1]), fields[2]})
		}
	}
	return targets
}

func main() {
	ca := flag.String("ca", "", "PEM file with the roots to trust")
	concurrency := flag.Int("concurrency", 200, "how many tests are made at a time")
	flag.Parse()
	pem, err := os.ReadFile(*ca)
	roots := x509.NewCertPool()
	if err != nil || !roots.AppendCertsFromPEM(pem) {
		fmt.Fprintln(os.Stderr, "client-go: -ca FILE with the roots to trust:", err)
		os.Exit(2)
	}
	targets := readTargets()
	began := time.Now()
	waiting := make(chan target)
	results := make(chan error, *concurrency)
	var workers sync.WaitGroup
	for i := 0; i < *concurrency; i++ {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for one := range waiting {
				results <- test(one, roots)
			}
		}()
	}
	go func() {
		for _, one := range targets {
			waiting <- one
		}
		close(waiting)
		workers.Wait()
		close(results)
	}()
	completed, failed := 0, 0
	for err := range results {
		if err == nil {
			completed++
		} else if failed++; failed <= 5 {
			fmt.Fprintln(os.Stderr, "client-go:", err)
		}
	}
	fmt.Printf("{\"targets\": %d, \"completed\": %d, \"seconds\": %.3f}\n", len(targets), completed, time.Since(began).Seconds())
	if completed != len(targets) || completed == 0 {
		os.Exit(1)
	}
}
