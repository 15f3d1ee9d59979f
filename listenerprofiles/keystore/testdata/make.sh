#!/bin/sh
# Makes the keystores of this folder anew, with keytool (JDK 17) and openssl (3.0). The keys are for tests only.
set -eu
cd "$(dirname "$0")"
rm -f -- *.jks *.p12 *.pem *.jceks *.key *.der

pass=changeit
kt() { keytool "$@" -storepass "$pass" >/dev/null 2>&1 || { echo "keytool $* failed" >&2; exit 1; }; }
rsa="-keyalg RSA -keysize 2048 -validity 36500"
ec="-keyalg EC -groupname secp256r1 -validity 36500"
san="-ext san=dns:localhost,ip:127.0.0.1"

# PEM: a root, an intermediate, a server of it, in each form that a key is written in.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 36500 -subj "/CN=Test Root" -keyout root.key -out root.pem 2>/dev/null
sign() { # name subject extensions ca
	openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "$2" -keyout "$1.key" -out "$1.csr" 2>/dev/null
	printf '%b' "$3" >ext.tmp
	openssl x509 -req -in "$1.csr" -CA "$4.pem" -CAkey "$4.key" -CAcreateserial -days 36500 -extfile ext.tmp -out "$1.pem" 2>/dev/null
	rm -f "$1.csr" ext.tmp ./*.srl
}
sign intermediate "/CN=Test Intermediate" "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n" root
sign leaf "/CN=server.test" "subjectAltName=DNS:server.test,DNS:localhost,IP:127.0.0.1\n" intermediate
cat leaf.pem intermediate.pem leaf.key >server-pkcs8.pem
{ cat leaf.key leaf.pem | openssl ec 2>/dev/null; cat leaf.pem; } >server-sec1.pem
openssl req -x509 -newkey rsa:2048 -nodes -days 36500 -subj "/CN=rsa.test" -keyout rsa.key -out rsa.pem 2>/dev/null
{ cat rsa.pem; openssl rsa -in rsa.key -traditional 2>/dev/null; } >server-pkcs1.pem
{ cat leaf.pem; openssl pkcs8 -topk8 -in leaf.key -passout "pass:$pass"; } >encrypted-pkcs8.pem
{ cat rsa.pem; openssl rsa -in rsa.key -traditional -aes128 -passout "pass:$pass" 2>/dev/null; } >encrypted-pkcs1.pem
{ cat leaf.pem; cat rsa.key; } >mismatch.pem
openssl x509 -in root.pem -text >trust.pem
openssl x509 -in rsa.pem >>trust.pem
openssl x509 -in leaf.pem -outform DER -out leaf.der

# JKS: keys with a password of their own; trusted certificates; both; none; an expired key.
kt -genkeypair -storetype JKS -keystore keys.jks -alias Gateway -keypass keypass -dname CN=gateway.test $rsa $san
kt -genkeypair -storetype JKS -keystore keys.jks -alias ec -keypass keypass -dname CN=ec.test $ec $san
kt -importcert -noprompt -storetype JKS -keystore trust.jks -alias root -file root.pem
kt -importcert -noprompt -storetype JKS -keystore trust.jks -alias acme -file rsa.pem
kt -genkeypair -storetype JKS -keystore mixed.jks -alias gateway -keypass "$pass" -dname CN=gateway.test $ec
kt -importcert -noprompt -storetype JKS -keystore mixed.jks -alias root -file root.pem
cp trust.jks empty.jks
kt -delete -keystore empty.jks -alias root
kt -delete -keystore empty.jks -alias acme
kt -genkeypair -storetype JKS -keystore expired.jks -alias gateway -keypass "$pass" -dname CN=expired.test -keyalg EC -groupname secp256r1 -startdate -1000d -validity 10

# PKCS #12 by keytool, with its algorithms of today and of Java 8.
kt -genkeypair -storetype PKCS12 -keystore single.p12 -alias gateway -dname CN=gateway.test $rsa
kt -genkeypair -storetype PKCS12 -keystore two.p12 -alias gateway -dname CN=gateway.test $rsa
kt -genkeypair -storetype PKCS12 -keystore two.p12 -alias ec -dname CN=ec.test $ec
kt -genkeypair -storetype PKCS12 -keystore ed25519.p12 -alias gateway -dname CN=ed.test -keyalg Ed25519 -validity 36500
kt -genkeypair -J-Dkeystore.pkcs12.legacy -storetype PKCS12 -keystore legacy.p12 -alias gateway -dname CN=gateway.test $rsa
kt -importcert -noprompt -storetype PKCS12 -keystore trust.p12 -alias root -file root.pem
kt -importcert -noprompt -storetype PKCS12 -keystore trust.p12 -alias acme -file rsa.pem
kt -importcert -noprompt -J-Dkeystore.pkcs12.legacy -storetype PKCS12 -keystore trust-legacy.p12 -alias root -file root.pem
kt -importcert -noprompt -J-Dkeystore.pkcs12.certProtectionAlgorithm=NONE -J-Dkeystore.pkcs12.macAlgorithm=NONE -storetype PKCS12 -keystore trust-nopassword.p12 -alias root -file root.pem
kt -genkeypair -storetype PKCS12 -keystore mixed.p12 -alias gateway -dname CN=gateway.test $ec
kt -importcert -noprompt -storetype PKCS12 -keystore mixed.p12 -alias root -file root.pem
cp trust-legacy.p12 empty.p12
kt -delete -keystore empty.p12 -alias root
kt -genkeypair -keystore really-pkcs12.jks -alias gateway -dname CN=gateway.test $ec
kt -genkeypair -storetype JCEKS -keystore keys.jceks -alias gateway -keypass "$pass" -dname CN=gateway.test $ec

# PKCS #12 by openssl: with a chain, of old algorithms, without keys, without password.
openssl pkcs12 -export -in leaf.pem -inkey leaf.key -certfile intermediate.pem -name gateway -passout "pass:$pass" -out openssl.p12
openssl pkcs12 -export -legacy -in leaf.pem -inkey leaf.key -certfile intermediate.pem -name gateway -passout "pass:$pass" -out openssl-legacy.p12
openssl pkcs12 -export -nokeys -in root.pem -passout "pass:$pass" -out openssl-nokeys.p12
openssl pkcs12 -export -in leaf.pem -inkey leaf.key -name gateway -keypbe NONE -certpbe NONE -nomac -passout pass: -out openssl-nopassword.p12
openssl pkcs12 -export -in leaf.pem -inkey leaf.key -name gateway -passout pass: -out openssl-emptypassword.p12

rm -f ./*.key
