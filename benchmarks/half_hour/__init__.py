"""What `benchmarks/first_half_hour.sh` runs beside the benchmarks themselves, and the page that is made of it."""
