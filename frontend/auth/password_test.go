package auth

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"
)

const horse = "correct horse"

// vectors are hashes of horse that other programs made: crypt(3) of
// libxcrypt, the argon2 command of its authors, Python's hashlib.
var vectors = []string{
	"{ARGON2ID}$argon2id$v=19$m=1024,t=2,p=1$c29tZXNhbHQ$HBMZ6iIOGeI6YFLuORlJUppB6tRx6cpAVHXXtN8Vxvw",
	"$argon2id$v=19$m=1024,t=2,p=1$c29tZXNhbHQ$HBMZ6iIOGeI6YFLuORlJUppB6tRx6cpAVHXXtN8Vxvw",
	"{CRYPT}$argon2id$v=19$m=1024,t=2,p=1$c29tZXNhbHQ$HBMZ6iIOGeI6YFLuORlJUppB6tRx6cpAVHXXtN8Vxvw",
	"{ARGON2I}$argon2i$v=19$m=512,t=3,p=2$c29tZXNhbHQ$7SRthA2f0XrJhmF6jw4FlM+evSILs/vG",
	"{BLF-CRYPT}$2a$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e",
	"{BLF-CRYPT}$2b$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e",
	"{BLF-CRYPT}$2y$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e",
	"{CRYPT}$2y$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e",
	"$2b$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e",
	"{SHA512-CRYPT}$6$saltstring$.r0X7ub5wGR2v4Xz7svCIozfnlorFh19V89t8KC9Umd81uGhFgsyTRNyzQDXDIm17fFcR9z3z7oBNdsyYBbtm/",
	"$6$rounds=10000$saltstringsaltst$uWkfitxWIj/pKw1nBSBgiQR8Pwbr7IMycYT33N8JITrE33DUmC8bV6rVVtFeP/iZRI3xx58jHgvVgQRG8FBmF/",
	"{SHA256-CRYPT}$5$saltstring$vc6YOOogU4kWVvwga8e9zTFgKcy4tb5LaPxIiPJzqEC",
	"{CRYPT}$5$rounds=10000$saltstringsaltst$ffO6RHJbzihHqETll0c/MLDJrGhQw9fAaO1LcVIStWB",
	"{MD5-CRYPT}$1$saltsalt$NuzA7WTAelpl95xgBGWN60",
	"{MD5}$1$saltsalt$NuzA7WTAelpl95xgBGWN60",
	"{CRYPT}$1$saltsalt$NuzA7WTAelpl95xgBGWN60",
	"{CRYPT}$y$j75$saltsaltsalt$zQziiNee/3jd.PJJvsNgy7GH5uO3HbsUNcQ3Jsopj2B",
	"{PBKDF2}$1$saltsalt$5000$eea55bb73edfcebda120ce88c5bec0d56f6053e6",
	"{SSHA}YjOxnlnw8lITpqjG3t+XV9jV7otwZXBwZXI=",
	"{SSHA.b64}YjOxnlnw8lITpqjG3t+XV9jV7otwZXBwZXI=",
	"{SSHA.hex}6233b19e59f0f25213a6a8c6dedf9757d8d5ee8b706570706572",
	"{SSHA256}iiBneCY1H83bKojQwRhnuXkXl3mOZIuJrAljDBgCy5BwZXBwZXI=",
	"{SSHA512}jKNzZGOpZV+d15b9woPUu/HlAvWT2N41SupXoEK6cIpe8kGEbagFMP62zqbEllyguDhie7qcSvb0YtWRmcfrEXBlcHBlcg==",
	"{SMD5}7fOGP3gyOw70sKAIQS6rXnBlcHBlcg==",
	"{SHA}L55TUjtiq8FBorTWAZ0jy6g129A=",
	"{SHA}L55TUjtiq8FBorTWAZ0jy6g129A",
	"{SHA1}2f9e53523b62abc141a2b4d6019d23cba835dbd0",
	"{SHA.hex}2F9E53523B62ABC141A2B4D6019D23CBA835DBD0",
	"{SHA256}QQTTb42iwlQ0n4WDZ5Pr4CngyVcGOjTJHC6SAxh7VjE=",
	"{sha256.HEX}4104d36f8da2c254349f85836793ebe029e0c957063a34c91c2e9203187b5631",
	"{SHA512.base64}VraY3v7bWkNbY0r+MyC7rz/c2SC2xQOkRvx7endrKY1HnRumqLYXgI6wv1ec6aldZoNHvKtxSQhayTyyeZUZew==",
	"{LDAP-MD5}PLTnMmMfR+brlh80VUt83g==",
	"{PLAIN-MD5}3cb4e732631f47e6eb961f34554b7cde",
	"{PLAIN}correct horse",
	"{CLEARTEXT}correct horse",
	"{PLAIN.b64}Y29ycmVjdCBob3JzZQ==",
	"{CLEAR.hex}636f727265637420686f727365",
}

func TestVerifyKnowsEveryScheme(t *testing.T) {
	t.Parallel()
	for _, stored := range vectors {
		t.Run(stored, func(t *testing.T) {
			t.Parallel()
			if ok, err := Verify(stored, horse); !ok || err != nil {
				t.Errorf("the right password: %v, %v", ok, err)
			}
			for _, wrong := range []string{"correct horsf", "Correct horse", horse + " ", "correct", "", strings.Repeat("x", MaxPassword)} {
				if ok, err := Verify(stored, wrong); ok || err != nil {
					t.Errorf("%.20q: %v, %v", wrong, ok, err)
				}
			}
		})
	}
	for name := range schemes {
		used := false
		for _, v := range vectors {
			used = used || strings.HasPrefix(strings.ToUpper(v), "{"+name+"}") || strings.HasPrefix(strings.ToUpper(v), "{"+name+".")
		}
		if !used {
			t.Errorf("no vector of {%s}", name)
		}
	}
}

// The argon2 reference implementation publishes this one.
func TestVerifyKnowsTheReferenceVector(t *testing.T) {
	t.Parallel()
	const stored = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
	if ok, err := Verify(stored, "password"); !ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
}

func TestVerifyCutsBcryptLikeOthers(t *testing.T) {
	t.Parallel()
	const stored = "{BLF-CRYPT}$2b$04$abcdefghijklmnopqrstuum2G75IXDN/xsgbNa/hCiPSKyIHQd70S"
	long := strings.Repeat("0123456789", 8)
	for password, want := range map[string]bool{long: true, long[:72]: true, long[:71]: false} {
		if ok, err := Verify(stored, password); ok != want || err != nil {
			t.Errorf("%d octets: %v, %v", len(password), ok, err)
		}
	}
}

func TestVerifyRefuses(t *testing.T) {
	t.Parallel()
	for stored, want := range map[string]error{
		"":                        ErrScheme,
		"secret":                  ErrScheme,
		"{PLAIN":                  ErrScheme,
		"{}secret":                ErrScheme,
		"{ROT13}frperg":           ErrScheme,
		"{SHA256.rot13}x":         ErrScheme,
		"{CRYPT}abJnggxhB/yWI":    ErrScheme,
		"$2x$04$abcdefghijklmnop": ErrScheme,
		"$argon2d$v=19$m=64,t=1,p=1$c29tZXNhbHQ$AAAAAAAA": ErrScheme,

		"{PLAIN}":      ErrMalformed,
		"{SHA256}":     ErrMalformed,
		"{SHA256}!!!":  ErrMalformed,
		"{SHA256}AAAA": ErrMalformed,
		"{SSHA}AAAA":   ErrMalformed,
		"{PLAIN}" + strings.Repeat("x", maxStored): ErrMalformed,
		"{SHA512-CRYPT}$5$salt$x":                  ErrMalformed,
		"$6$salt":                                  ErrMalformed,
		"$6$salt$":                                 ErrMalformed,
		"$6$rounds=x$salt$y":                       ErrMalformed,
		"$6$rounds=5000":                           ErrMalformed,
		"$1$":                                      ErrMalformed,
		"$2b$04$short":                             ErrMalformed,
		"$2b$99$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e": ErrMalformed,
		"$y$":                         ErrMalformed,
		"$y$j75$salt":                 ErrMalformed,
		"$y$j!5$saltsaltsalt$xxxxxxx": ErrMalformed,
		"$argon2id$v=16$m=64,t=1,p=1$c29tZXNhbHQ$AAAAAAAA":           ErrMalformed,
		"$argon2id$v=19$m=64,t=0,p=1$c29tZXNhbHQ$AAAAAAAA":           ErrMalformed,
		"$argon2id$v=19$m=64,t=1,p=0$c29tZXNhbHQ$AAAAAAAA":           ErrMalformed,
		"$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$":                   ErrMalformed,
		"$argon2id$v=19$m=-1,t=1,p=1$c29tZXNhbHQ$AAAAAAAA":           ErrMalformed,
		"{PBKDF2}$1$salt$0$eea55bb73edfcebda120ce88c5bec0d56f6053e6": ErrMalformed,
		"{PBKDF2}$1$salt$5000$eea5":                                  ErrMalformed,

		"$argon2id$v=19$m=67108864,t=1,p=1$c29tZXNhbHQ$AAAAAAAA":              ErrCost,
		"$argon2id$v=19$m=4294967295,t=4294967295,p=1$c29tZXNhbHQ$AAAAAAAA":   ErrCost,
		"$argon2i$v=19$m=8,t=1000000,p=1$c29tZXNhbHQ$AAAAAAAA":                ErrCost,
		"$argon2id$v=19$m=64,t=1,p=255$c29tZXNhbHQ$AAAAAAAA":                  ErrCost,
		"$2b$31$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e":        ErrCost,
		"$6$rounds=999999999$salt$x":                                          ErrCost,
		"$y$jzz$saltsaltsalt$xxxxxxx":                                         ErrCost,
		"{PBKDF2}$1$salt$4000000000$eea55bb73edfcebda120ce88c5bec0d56f6053e6": ErrCost,
	} {
		ok, err := Verify(stored, horse)
		if ok || !errors.Is(err, want) {
			t.Errorf("%.60q: %v, %v; want %v", stored, ok, err, want)
		}
		if err != nil && len(stored) > 12 && strings.Contains(err.Error(), stored[len(stored)-5:]) {
			t.Errorf("%q: the error %q tells what is stored", stored, err)
		}
	}
}

func TestHash(t *testing.T) {
	t.Parallel()
	one, err := Hash(horse)
	if err != nil {
		t.Fatal(err)
	}
	two, err := Hash(horse)
	if err != nil {
		t.Fatal(err)
	}
	if one == two {
		t.Error("two hashes of one password are the same")
	}
	if !strings.HasPrefix(one, "{ARGON2ID}$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Errorf("hash is %q", one)
	}
	if ok, err := Verify(one, horse); !ok || err != nil {
		t.Errorf("the right password: %v, %v", ok, err)
	}
	if ok, err := Verify(one, "other"); ok || err != nil {
		t.Errorf("a wrong password: %v, %v", ok, err)
	}
	for _, bad := range []string{"", "a\x00b", "a\nb", "\xff", strings.Repeat("x", MaxPassword+1)} {
		if _, err := Hash(bad); !errors.Is(err, ErrPassword) {
			t.Errorf("%.10q: %v", bad, err)
		}
	}
}

func TestPrepare(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"secret":       "secret",
		"Ame\u0301lie": "Am\u00e9lie",
		"a\u00a0b":     "a b",
		"A b":          "A b",
		"a\x01b":       "a\x01b", // not allowed: as it is
		"":             "",
	} {
		if got := Prepare(in); got != want {
			t.Errorf("Prepare(%q) is %q, want %q", in, got, want)
		}
	}
}

// Whatever is stored, and whatever is sent: an answer, soon, and no panic.
func FuzzVerify(f *testing.F) {
	for _, v := range vectors {
		f.Add(v, horse)
	}
	f.Add("{CRYPT}$6$rounds=$$", "")
	f.Add("{SHA.}", "x")
	f.Fuzz(func(t *testing.T, stored, password string) {
		// Bounded costs may still be high; the fuzzer is to look at the parsers.
		if len(stored) > 200 || strings.Contains(stored, "rounds=") || strings.Contains(stored, "m=") || strings.HasPrefix(stored, "{PBKDF2") {
			stored = strings.NewReplacer("rounds=", "rounds=x", "m=", "m=x", "{PBKDF2", "{").Replace(stored)
		}
		if strings.Contains(stored, "$2") || strings.Contains(stored, "$y") {
			return
		}
		ok, err := Verify(stored, password)
		if ok && err != nil {
			t.Errorf("both a match and %v", err)
		}
		plain := "{PLAIN.b64}" + base64.StdEncoding.EncodeToString([]byte(password))
		if ok, err := Verify(plain, password); password != "" && len(plain) < maxStored && len(password) <= MaxPassword && (!ok || err != nil) {
			t.Errorf("{PLAIN} of %q: %v, %v", password, ok, err)
		}
	})
}

func BenchmarkHash(b *testing.B) {
	for b.Loop() {
		if _, err := Hash(horse); err != nil {
			b.Fatal(err)
		}
	}
}
