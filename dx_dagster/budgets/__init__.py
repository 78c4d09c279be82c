"""The rolling window of requests that Bitbucket grants a credential, without HTTP and SQL."""
