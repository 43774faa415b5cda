// Doors of the JDK: an SSLServerSocket, as Tomcat and Jetty build on, and the HttpsServer.
// usage: java JavaDoors.java FOLDER

import com.sun.net.httpserver.HttpsConfigurator;
import com.sun.net.httpserver.HttpsParameters;
import com.sun.net.httpserver.HttpsServer;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Base64;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.SSLServerSocket;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManagerFactory;

public final class JavaDoors {
    private static byte[] answer;

    public static void main(String[] arguments) throws Exception {
        Path folder = Path.of(arguments[0]);
        answer = Files.readAllBytes(folder.resolve("answer.xml"));
        SSLContext context = context(folder);
        for (String version : new String[] {"TLSv1.2", "TLSv1.3"}) {
            socket(context, version);
            https(context, version);
        }
        System.out.println("ready");
    }

    private static SSLContext context(Path folder) throws Exception {
        KeyStore own = KeyStore.getInstance("PKCS12");
        own.load(null, null);
        own.setKeyEntry(
            "server",
            key(folder.resolve("server.key")),
            new char[0],
            certificates(folder.resolve("server.pem")));
        KeyManagerFactory keys = KeyManagerFactory.getInstance("PKIX");
        keys.init(own, new char[0]);
        KeyStore trusted = KeyStore.getInstance("PKCS12");
        trusted.load(null, null);
        trusted.setCertificateEntry("clients", certificates(folder.resolve("clients.pem"))[0]);
        TrustManagerFactory trust = TrustManagerFactory.getInstance("PKIX");
        trust.init(trusted);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(keys.getKeyManagers(), trust.getTrustManagers(), null);
        return context;
    }

    private static PrivateKey key(Path file) throws Exception {
        String base64 = Files.readString(file).replaceAll("-----[^-]+-----|\\s", "");
        byte[] der = Base64.getDecoder().decode(base64);
        return KeyFactory.getInstance("EC").generatePrivate(new PKCS8EncodedKeySpec(der));
    }

    private static Certificate[] certificates(Path file) throws Exception {
        try (InputStream pem = Files.newInputStream(file)) {
            return CertificateFactory.getInstance("X.509")
                .generateCertificates(pem)
                .toArray(new Certificate[0]);
        }
    }

    private static void say(String door, String version, int port) {
        System.out.println(door + " " + version + " " + port);
    }

    private static void https(SSLContext context, String version) throws Exception {
        HttpsServer server =
            HttpsServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
        server.setHttpsConfigurator(
            new HttpsConfigurator(context) {
                @Override
                public void configure(HttpsParameters parameters) {
                    SSLParameters wanted = context.getDefaultSSLParameters();
                    wanted.setNeedClientAuth(true);
                    wanted.setProtocols(new String[] {version});
                    parameters.setSSLParameters(wanted);
                }
            });
        server.createContext(
            "/",
            exchange -> {
                exchange.getRequestBody().readAllBytes();
                exchange.getResponseHeaders().set("Content-Type", "text/xml");
                exchange.sendResponseHeaders(500, answer.length);
                exchange.getResponseBody().write(answer);
                exchange.close();
            });
        server.start();
        say("HttpsServer", version, server.getAddress().getPort());
    }

    private static void socket(SSLContext context, String version) throws Exception {
        SSLServerSocket listening =
            (SSLServerSocket)
                context.getServerSocketFactory()
                    .createServerSocket(0, 50, InetAddress.getLoopbackAddress());
        listening.setNeedClientAuth(true);
        listening.setEnabledProtocols(new String[] {version});
        new Thread(() -> accept(listening)).start();
        say("SSLServerSocket", version, listening.getLocalPort());
    }

    private static void accept(SSLServerSocket listening) {
        while (true) {
            try {
                SSLSocket client = (SSLSocket) listening.accept();
                new Thread(() -> serve(client)).start();
            } catch (IOException ended) {
                return;
            }
        }
    }

    private static void serve(SSLSocket client) {
        try (client) {
            client.startHandshake();
            request(client.getInputStream());
            String head =
                "HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/xml\r\n"
                    + "Connection: close\r\nContent-Length: " + answer.length + "\r\n\r\n";
            client.getOutputStream().write(head.getBytes(StandardCharsets.US_ASCII));
            client.getOutputStream().write(answer);
        } catch (IOException refused) {
            // JSSE has sent its alert.
        }
    }

    private static void request(InputStream input) throws IOException {
        ByteArrayOutputStream seen = new ByteArrayOutputStream();
        while (!seen.toString(StandardCharsets.ISO_8859_1).endsWith("\r\n\r\n")) {
            int next = input.read();
            if (next < 0) {
                throw new IOException("no request");
            }
            seen.write(next);
        }
        String head = seen.toString(StandardCharsets.ISO_8859_1).toLowerCase();
        String length = head.split("content-length: ")[1].split("\r\n")[0];
        input.readNBytes(Integer.parseInt(length));
    }
}
