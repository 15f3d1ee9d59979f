import java.io.*;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.security.*;
import java.security.cert.*;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.*;
import javax.crypto.spec.SecretKeySpec;

/**
 * Makes stores with this Java, and tells what this Java finds in stores.
 *
 * make IN OUT: writes stores to OUT, and OUT/manifest with a line for each: file, password and key password. IN holds keys
 * (NAME.p8, NAME.0.der and so on) and certificates (NAME.der).
 * list MANIFEST: prints a line for each store, and one for each of its entries.
 */
public class Oracle {
    static Path in, out;
    static PrintStream manifest;

    public static void main(String[] args) throws Exception {
        if (args[0].equals("make")) {
            in = Path.of(args[1]);
            out = Path.of(args[2]);
            manifest = new PrintStream(Files.newOutputStream(out.resolve("manifest")), true, "UTF-8");
            make();
            if (args.length == 3) return;
            bouncyCastle(); // by one Java: it doesn't matter which
            args = Arrays.copyOfRange(args, 3, args.length);
        }
        PrintStream to = new PrintStream(new FileOutputStream(FileDescriptor.out), true, "UTF-8");
        for (int n = 1; n < args.length; n++)
            for (String line : Files.readAllLines(Path.of(args[n]))) list(to, line.split("\t", -1));
    }

    static void list(PrintStream to, String[] store) {
        KeyStore ks;
        try (InputStream file = Files.newInputStream(Path.of(store[0]))) {
            ks = KeyStore.getInstance("PKCS12"); // which reads JKS as well
            ks.load(file, store[1].toCharArray());
        } catch (Exception e) {
            to.println("store\t" + store[0] + "\tno\t" + e.toString().replaceAll("\\s", " "));
            return;
        }
        to.println("store\t" + store[0] + "\tyes\t");
        try {
            for (String alias : Collections.list(ks.aliases())) {
                String kind = ks.isCertificateEntry(alias) ? "trustedCertEntry"
                    : ks.entryInstanceOf(alias, KeyStore.SecretKeyEntry.class) ? "SecretKeyEntry" : "PrivateKeyEntry";
                List<String> chain = new ArrayList<>();
                java.security.cert.Certificate[] certs = ks.getCertificateChain(alias);
                if (kind.equals("trustedCertEntry")) certs = new java.security.cert.Certificate[] {ks.getCertificate(alias)};
                if (certs != null) for (var c : certs) chain.add(digest(c.getEncoded()));
                String key = "";
                if (kind.equals("PrivateKeyEntry"))
                    try {
                        key = ks.getKey(alias, store[2].toCharArray()) == null ? "none" : "opens";
                    } catch (Exception e) {
                        key = "no: " + e.toString().replaceAll("\\s", " ");
                    }
                to.println("entry\t" + store[0] + "\t" + alias + "\t" + kind + "\t" + String.join(",", chain) + "\t" + key);
            }
        } catch (Exception e) {
            throw new RuntimeException(store[0], e);
        }
    }

    static String digest(byte[] der) throws Exception {
        return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(der)).substring(0, 16);
    }

    static java.security.cert.Certificate certificate(String name) throws Exception {
        try (InputStream file = Files.newInputStream(in.resolve(name + ".der"))) {
            return CertificateFactory.getInstance("X.509").generateCertificate(file);
        }
    }

    static java.security.cert.Certificate[] chain(String name) throws Exception {
        List<java.security.cert.Certificate> chain = new ArrayList<>();
        for (int n = 0; Files.exists(in.resolve(name + "." + n + ".der")); n++) chain.add(certificate(name + "." + n));
        return chain.toArray(new java.security.cert.Certificate[0]);
    }

    static PrivateKey key(String name) throws Exception {
        String algorithm = name.startsWith("rsa") ? "RSA" : name.startsWith("ed") ? "Ed25519" : "EC";
        return KeyFactory.getInstance(algorithm).generatePrivate(new PKCS8EncodedKeySpec(Files.readAllBytes(in.resolve(name + ".p8"))));
    }

    interface Filling {
        void fill(KeyStore ks) throws Exception;
    }

    static void store(String type, String name, String password, String keyPassword, Filling filling) throws Exception {
        store(KeyStore.getInstance(type), name, password, keyPassword, filling);
    }

    static void store(KeyStore ks, String name, String password, String keyPassword, Filling filling) throws Exception {
        ks.load(null, null);
        filling.fill(ks);
        Path file = out.resolve(name.replace('/', '-'));
        try (OutputStream to = Files.newOutputStream(file)) {
            ks.store(to, password.toCharArray());
        }
        manifest.println(file + "\t" + password + "\t" + keyPassword);
    }

    static void set(String property, String value) {
        System.setProperty("keystore.pkcs12." + property, value);
    }

    static final String pass = "changeit";
    static final char[] chars = pass.toCharArray();
    static final Filling mixed = ks -> {
        ks.setKeyEntry("Gateway", key("ec"), chars, chain("ec"));
        ks.setKeyEntry("rsa", key("rsa"), chars, chain("rsa"));
        ks.setCertificateEntry("Root CA", certificate("ca0"));
    };

    static void make() throws Exception {
        for (String what : List.of("certPbe", "keyPbe", "mac")) set(what + "IterationCount", "1500");
        for (String pbe : List.of("PBEWithSHA1AndRC2_40", "PBEWithSHA1AndRC2_128", "PBEWithSHA1AndRC4_40", "PBEWithSHA1AndRC4_128",
                "PBEWithSHA1AndDESede", "PBEWithMD5AndDES", "PBEWithHmacSHA1AndAES_128", "PBEWithHmacSHA224AndAES_256",
                "PBEWithHmacSHA256AndAES_128", "PBEWithHmacSHA256AndAES_256", "PBEWithHmacSHA384AndAES_256",
                "PBEWithHmacSHA512AndAES_256")) {
            set("certProtectionAlgorithm", pbe);
            set("keyProtectionAlgorithm", pbe);
            store("PKCS12", pbe + ".p12", pass, pass, mixed);
        }
        set("certProtectionAlgorithm", "PBEWithHmacSHA256AndAES_256");
        set("keyProtectionAlgorithm", "PBEWithHmacSHA256AndAES_256");
        for (String mac : List.of("NONE", "HmacPBESHA1", "HmacPBESHA224", "HmacPBESHA256", "HmacPBESHA384", "HmacPBESHA512",
                "HmacPBESHA512/224", "HmacPBESHA512/256")) {
            set("macAlgorithm", mac);
            store("PKCS12", mac + ".p12", pass, pass, mixed);
        }
        set("certProtectionAlgorithm", "NONE");
        set("macAlgorithm", "NONE");
        store("PKCS12", "passwordless.p12", pass, pass, mixed);
        set("macAlgorithm", "HmacPBESHA256");
        store("PKCS12", "certificates-plain.p12", pass, pass, mixed);
        set("certProtectionAlgorithm", "PBEWithHmacSHA256AndAES_256");
        for (String type : List.of("PKCS12", "JKS")) {
            String ext = type.equals("JKS") ? ".jks" : ".p12";
            store(type, "mixed" + ext, pass, pass, mixed);
            store(type, "empty" + ext, pass, pass, ks -> {});
            store(type, "wso2carbon" + ext, "wso2carbon", "wso2carbon", ks -> {
                ks.setKeyEntry("wso2carbon", key("rsa"), "wso2carbon".toCharArray(), chain("rsa"));
                for (int n = 0; n < 140; n++) ks.setCertificateEntry("ca" + n, certificate("ca" + n));
                ks.setCertificateEntry("negative", certificate("negative"));
            });
            store(type, "client-truststore" + ext, "wso2carbon", "", ks -> {
                for (int n = 0; n < 20; n++) ks.setCertificateEntry("ca" + n, certificate("ca" + n));
                ks.setCertificateEntry("negative", certificate("negative"));
                ks.setCertificateEntry("brainpool", certificate("brainpool.0"));
            });
            store(type, "own-key-password" + ext, pass, "of the key", ks -> {
                ks.setKeyEntry("gateway", key("ec"), "of the key".toCharArray(), chain("ec"));
                ks.setKeyEntry("other", key("rsa"), chars, chain("rsa"));
            });
            store(type, "ed25519" + ext, pass, pass, ks -> ks.setKeyEntry("ed", key("ed"), chars, chain("ed")));
            store(type, "aliases" + ext, pass, pass, ks -> {
                ks.setCertificateEntry("\u00c4\u00d6\u00dc \ud83d\udd11", certificate("ca0"));
                ks.setCertificateEntry("1", certificate("ca1"));
                ks.setCertificateEntry("", certificate("ca2"));
                ks.setKeyEntry("\u65e5\u672c", key("ec"), chars, chain("ec"));
            });
            if (type.equals("JKS") || Runtime.version().feature() >= 25)
                for (String password : List.of("p\u00e4ssw\u00f6rd", "\u65e5\u672c\u8a9e", "\ud83d\udd11 key"))
                    store(type, "password-" + password.length() + ext, password, password, ks -> {
                        ks.setKeyEntry("gateway", key("ec"), password.toCharArray(), chain("ec"));
                        ks.setCertificateEntry("ca", certificate("ca0"));
                    });
            store(type, "empty-password" + ext, "", "", ks -> {
                ks.setKeyEntry("gateway", key("ec"), new char[0], chain("ec"));
                ks.setCertificateEntry("ca", certificate("ca0"));
            });
            store(type, "short-chain" + ext, pass, pass, ks ->
                ks.setKeyEntry("gateway", key("ec"), chars, new java.security.cert.Certificate[] {chain("ec")[0]}));
        }
        set("certProtectionAlgorithm", "PBEWithSHA1AndRC2_40");
        set("keyProtectionAlgorithm", "PBEWithSHA1AndDESede");
        set("macAlgorithm", "HmacPBESHA1");
        store("PKCS12", "legacy-empty-password.p12", "", "", ks -> ks.setKeyEntry("gateway", key("ec"), new char[0], chain("ec")));
        if (Runtime.version().feature() >= 25) store("PKCS12", "legacy-password.p12", "p\u00e4ss", "p\u00e4ss",
            ks -> ks.setKeyEntry("gateway", key("ec"), "p\u00e4ss".toCharArray(), chain("ec")));
        store("PKCS12", "secret.p12", pass, pass, ks -> {
            ks.setEntry("secret", new KeyStore.SecretKeyEntry(new SecretKeySpec(new byte[16], "AES")), new KeyStore.PasswordProtection(chars));
            ks.setKeyEntry("gateway", key("ec"), chars, chain("ec"));
        });
        store("JCEKS", "keys.jceks", pass, pass, mixed);
        keytool("keytool.p12", "-genkeypair", "-alias", "One", "-keyalg", "EC", "-dname", "CN=one");
        keytool("keytool.p12", "-genkeypair", "-alias", "two", "-keyalg", "EC", "-dname", "CN=two", "-signer", "One");
        keytool("keytool.p12", "-importcert", "-noprompt", "-alias", "trusted", "-file", in.resolve("ca0.der").toString());
        keytool("keytool.jks", "-importkeystore", "-noprompt", "-srckeystore", out.resolve("keytool.p12").toString(), "-srcstorepass", pass,
            "-deststoretype", "JKS");
        for (String name : List.of("keytool.p12", "keytool.jks")) manifest.println(out.resolve(name) + "\t" + pass + "\t" + pass);
    }

    /** What BouncyCastle writes, as BER. Its provider isn't installed: this Java lists the stores by its own. */
    static void bouncyCastle() throws Exception {
        Provider bc = (Provider) Class.forName("org.bouncycastle.jce.provider.BouncyCastleProvider").getConstructor().newInstance();
        for (Provider.Service service : bc.getServices()) {
            String type = service.getAlgorithm(); // it has several of PKCS #12, by how they encrypt
            if (!service.getType().equals("KeyStore") || !type.matches("PKCS12.*|BKS|UBER")) continue;
            store(KeyStore.getInstance(type, bc), "bouncycastle-" + type, pass, pass, mixed);
            if (!type.startsWith("PKCS12")) continue;
            store(KeyStore.getInstance(type, bc), "bouncycastle-trust-" + type, pass, pass, ks -> {
                for (int n = 0; n < 3; n++) ks.setCertificateEntry("CA " + n, certificate("ca" + n));
            });
            store(KeyStore.getInstance(type, bc), "bouncycastle-empty-" + type, "", "", mixed);
        }
    }

    /** keytool itself, without a start of Java for each of its commands. */
    static void keytool(String name, String... args) throws Exception {
        List<String> all = new ArrayList<>(List.of(args));
        boolean imports = args[0].equals("-importkeystore");
        all.addAll(List.of(imports ? "-destkeystore" : "-keystore", out.resolve(name).toString(),
            imports ? "-deststorepass" : "-storepass", "changeit"));
        sun.security.tools.keytool.Main.main(all.toArray(new String[0]));
    }
}
