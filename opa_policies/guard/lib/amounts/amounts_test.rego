package guard.lib.amounts_test

import data.guard.lib.amounts

test_thousandths_are_said_as_decimals if {
	amounts.spoken("cpu_milli", 9000) == "cpu 9"
	amounts.spoken("gpu_milli@a100", 1500) == "gpu@a100 1.5"
	amounts.spoken("custom_license", 10) == "custom_license 0.01"
	amounts.amount("cpu_milli", 0) == "0"
	amounts.amount("cpu_milli", 7) == "0.007"
	amounts.amount("cpu_milli", 250) == "0.25"
	amounts.amount("cpu_milli", 1000) == "1"
	amounts.amount("cpu_milli", 1234567) == "1234.567"
	amounts.amount("cpu_milli", 10000) == "10"
}

test_anything_else_stays_as_it_is if {
	amounts.spoken("jobs", 3) == "jobs 3"
	amounts.spoken("memory_bytes", 1024) == "memory_bytes 1024"
	amounts.spoken("cpu_milli", "?") == "cpu ?"
}
