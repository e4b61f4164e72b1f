echo "$GREETING $# $1 $2" > out
