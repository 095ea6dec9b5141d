// Package check tests what is in docker/ without a container engine: compose file and manifests against their
// schemas, the Dockerfile by BuildKit's parser, and the whole by running the compose file's services as
// plain processes. It is a module of its own so that its libraries are not the server's.
package check
