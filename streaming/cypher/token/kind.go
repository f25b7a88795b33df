package token

// Kind names what sort of mistake an Error is: one of the constants below. Where openCypher has a name for it (the
// details of its SyntaxError, SemanticError, TypeError, ArgumentError...), Kind is that name.
type Kind string

// The kinds of mistakes in the text of a query, found before it runs.
const (
	InvalidSyntax                   Kind = "InvalidSyntax" // what has no better name
	UnexpectedSyntax                Kind = "UnexpectedSyntax"
	InvalidClauseComposition        Kind = "InvalidClauseComposition"
	InvalidNumberLiteral            Kind = "InvalidNumberLiteral"
	InvalidUnicodeCharacter         Kind = "InvalidUnicodeCharacter"
	InvalidUnicodeLiteral           Kind = "InvalidUnicodeLiteral"
	InvalidParameterUse             Kind = "InvalidParameterUse"
	InvalidRelationshipPattern      Kind = "InvalidRelationshipPattern"
	FloatingPointOverflow           Kind = "FloatingPointOverflow"
	NoExpressionAlias               Kind = "NoExpressionAlias"
	NoVariablesInScope              Kind = "NoVariablesInScope"
	UndefinedVariable               Kind = "UndefinedVariable"
	VariableAlreadyBound            Kind = "VariableAlreadyBound"
	VariableTypeConflict            Kind = "VariableTypeConflict"
	ColumnNameConflict              Kind = "ColumnNameConflict"
	DifferentColumnsInUnion         Kind = "DifferentColumnsInUnion"
	AmbiguousAggregationExpression  Kind = "AmbiguousAggregationExpression"
	InvalidAggregation              Kind = "InvalidAggregation"
	NestedAggregation               Kind = "NestedAggregation"
	NonConstantExpression           Kind = "NonConstantExpression"
	RelationshipUniquenessViolation Kind = "RelationshipUniquenessViolation"
	RequiresDirectedRelationship    Kind = "RequiresDirectedRelationship"
	UnknownFunction                 Kind = "UnknownFunction"
	InvalidNumberOfArguments        Kind = "InvalidNumberOfArguments"
	MissingParameter                Kind = "MissingParameter"
	Unsupported                     Kind = "Unsupported"   // known, but nothing that a continuous query does
	LimitExceeded                   Kind = "LimitExceeded" // larger or deeper than a query may be
)

// The kinds of mistakes that are found in the text or when an expression meets a value.
const (
	InvalidArgumentType           Kind = "InvalidArgumentType"
	InvalidArgumentValue          Kind = "InvalidArgumentValue"
	NegativeIntegerArgument       Kind = "NegativeIntegerArgument"
	IntegerOverflow               Kind = "IntegerOverflow"
	DivisionByZero                Kind = "DivisionByZero"
	NumberOutOfRange              Kind = "NumberOutOfRange"
	MapElementAccessByNonString   Kind = "MapElementAccessByNonString"
	ListElementAccessByNonInteger Kind = "ListElementAccessByNonInteger"
	DeletedEntityAccess           Kind = "DeletedEntityAccess"
)
