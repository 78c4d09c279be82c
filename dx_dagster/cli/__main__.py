from dx_dagster.cli import main

main()
