module rubrica/interop/rfc6962

go 1.19

require github.com/transparency-dev/merkle v0.0.2
