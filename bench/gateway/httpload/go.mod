module backstop.test/bench/httpload

go 1.26.0
