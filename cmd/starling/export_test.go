package main

// DevCertificate makes the certificate of starling dev for tests of serve.
var DevCertificate = devCertificate
