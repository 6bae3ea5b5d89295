# METADATA
# title: Amounts for people
# description: |
#   The ledger counts CPUs, GPUs and custom resources in thousandths; messages say them as people do: cpu 1.5.
# custom:
#   article: 4
package guard.lib.amounts

# METADATA
# title: A resource and its amount
# description: 9000 cpu_milli is cpu 9; an amount that is no number is given as it is.
# custom:
#   article: 4
spoken(resource, value) := sprintf("%v %v", [name(resource), amount(resource, value)])

# METADATA
# title: The name that goes with an amount
# description: gpu@a100 for gpu_milli@a100.
# custom:
#   article: 4
name(resource) := replace(resource, "_milli", "")

# METADATA
# title: An amount
# description: |
#   Thousandths as decimals, anything else as it is. Never undefined: a message that is undefined would be a
#   reason less.
# custom:
#   article: 4
amount(resource, value) := text if {
	is_number(value)
	in_thousandths(resource)
	text := thousandths(value)
} else := value

# METADATA
# title: Counted in thousandths
# description: CPUs, GPUs and custom resources.
# custom:
#   article: 4
in_thousandths(resource) if {
	contains(resource, "_milli")
} else if startswith(resource, "custom_")

# METADATA
# title: Thousandths as decimals
# description: 1500 is 1.5, and 2000 is 2, the usual case first. By digits, since engines divide differently.
# custom:
#   article: 4
thousandths(value) := "0" if {
	value == 0
} else := trim_suffix(text, "000") if {
	value >= 1000
	text := sprintf("%v", [value])
	endswith(text, "000")
} else := trim_right(trim_right(decimal, "0"), ".") if {
	value >= 1000
	text := sprintf("%v", [value])
	digits := split(text, "")
	is_array(digits)
	whole := count(digits) - 3
	decimal := concat(".", [substring(text, 0, whole), substring(text, whole, 3)])
} else := trim_right(trim_right(sprintf("0.%v%v", [zeros(value), value]), "0"), ".")

# METADATA
# title: Zeros behind the point
# description: What less than a hundred thousandths begin with.
# custom:
#   article: 4
zeros(value) := "00" if {
	value < 10
} else := "0" if {
	value < 100
} else := ""
