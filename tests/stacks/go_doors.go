// Doors of Go's net/http. usage: go_doors FOLDER
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
)

func main() {
	file := func(name string) string { return filepath.Join(os.Args[1], name) }
	pair, err := tls.LoadX509KeyPair(file("server.pem"), file("server.key"))
	check(err)
	root, err := os.ReadFile(file("clients.pem"))
	check(err)
	answer, err := os.ReadFile(file("answer.xml"))
	check(err)
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(root)
	versions := map[string]uint16{"TLSv1.2": tls.VersionTLS12, "TLSv1.3": tls.VersionTLS13}
	for name, version := range versions {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		check(err)
		config := &tls.Config{
			Certificates: []tls.Certificate{pair},
			ClientAuth:   tls.RequireAndVerifyClientCert,
			ClientCAs:    clients,
			MinVersion:   version,
			MaxVersion:   version,
		}
		server := &http.Server{
			TLSConfig: config,
			ErrorLog:  log.New(io.Discard, "", 0),
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/xml")
				w.WriteHeader(500)
				w.Write(answer)
			}),
		}
		go server.ServeTLS(listener, "", "")
		fmt.Println("net/http", name, listener.Addr().(*net.TCPAddr).Port)
	}
	fmt.Println("ready")
	select {}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
