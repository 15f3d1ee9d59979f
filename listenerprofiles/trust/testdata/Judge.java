import java.io.*;
import java.nio.file.*;
import java.security.KeyStore;
import java.security.cert.*;
import java.util.Collection;
import javax.net.ssl.*;

/**
 * Judges client certificates as a server of this Java does. Each argument is a folder with chain.pem, the client's
 * certificate first, and store.pem, the trust store. Prints a line for each: "good", or "bad" and why.
 */
public class Judge {
    public static void main(String[] folders) throws Exception {
        PrintStream to = new PrintStream(new FileOutputStream(FileDescriptor.out), true, "UTF-8");
        for (String folder : folders) {
            String verdict = "good";
            try {
                judge(Path.of(folder));
            } catch (CertificateException e) { // any other would be this program's fault
                Throwable root = e;
                while (root.getCause() != null) root = root.getCause();
                verdict = "bad\t" + root.toString().replaceAll("\\s+", " ");
            }
            to.println(verdict);
        }
    }

    static void judge(Path folder) throws Exception {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        int n = 0;
        for (Certificate entry : read(folder.resolve("store.pem"))) store.setCertificateEntry("entry" + n++, entry);
        TrustManagerFactory factory = TrustManagerFactory.getInstance("PKIX");
        factory.init(store);
        X509Certificate[] chain = read(folder.resolve("chain.pem")).toArray(new X509Certificate[0]);
        ((X509TrustManager) factory.getTrustManagers()[0]).checkClientTrusted(chain, chain[0].getPublicKey().getAlgorithm());
    }

    static Collection<? extends Certificate> read(Path file) throws Exception {
        try (InputStream in = Files.newInputStream(file)) {
            return CertificateFactory.getInstance("X.509").generateCertificates(in);
        }
    }
}
