"""The rolling window of requests that Bitbucket grants a credential: arithmetic and protocol, no HTTP and no SQL."""
