package sim

import "testing"

// TestRegressions replays what once went wrong: the seed with its whole
// scenario, and the smallest one that showed it.
func TestRegressions(t *testing.T) {
	for _, r := range []struct {
		what     string
		seed     uint64
		scenario string
	}{
		{"a launch that reaches its agent after the agent was given up runs for ever: the master does not know it, so nobody can end it", 106, `
			3s create 2877034766
			3.705s create 1004829892
			10.187s cut 3760618510
			24.428s restart 754161544
			2m39.664s cancel 3616574584`},
		{"a registration that crosses the acknowledgement of a task's end leaves a row for ever", 106, `
			3s create 2877034766
			3.705s create 1004829892
			10.187s cut 3760618510
			24.428s restart 754161544
			1m6.091s kill 2771634609
			1m21.124s hang 4251303933
			1m36.474s reset 2053144153
			1m50.968s host-loss 3225800352
			2m2.098s create 1858576014
			2m29.079s bad-listing 2320683815
			2m39.664s cancel 3616574584`},
		{"an app that is changed and shrinks at once loses a healthy new instance and, for that one, a healthy old one", 3458, `
			3s create 603618874
			5.421s create 3056125634
			9.252s group 2421425846
			10.679s restart 2644887462
			13.491s restart 3558984962
			14.206s die 2776518942
			14.494s die 562235684
			15.32s scale 3076517336
			15.857s die 4158071016
			17.676s die 3498282425
			19.839s die 3350239207
			22.542s scale 3277393227
			25.223s config 261815407
			25.314s die 477764324
			27.607s create 3406903764
			29.573s die 3123362941
			29.865s die 3170035710
			31.96s die 4258309909
			33.007s die 63801129
			36.557s die 2210623849
			38.25s kill 3722679358
			39.835s scale 1703543100
			40.603s cancel 2953694309
			44.632s cancel 285575212
			46.398s delete 3577533897
			52.596s scale 1297263001`},
		{"volumes that were made under another ID of the framework are waited for for ever", 3510, `
			1m30.596s group 3021069468
			1m45.699s service 3458636553
			1m57.19s cut 420074878
			5m35.13s kill 64281527`},
		{"an agent that dies before it has its ID leaves one behind that never comes", 16197, `
			3.086s crash 3251214736`},
		{"what was known of the health of a pod's container before a restart is taken for true", 22924, `
			3s create 658970707
			16.072s vanish 1469029441
			20.051s vanish 362544178
			29.614s crash 3334472927
			34.128s die 569290878
			47.958s service 2800405810
			58.498s crash 3923938382
			1m6.1s vanish 1915806996
			1m17.927s scale 115712835
			1m28.958s vanish 1046748066
			1m33.308s scale 3849173471
			1m37.022s die 1359544663
			1m55.151s vanish 87778598
			2m5.353s crash 1905278878
			2m13.52s fail 3976910504
			2m36.705s die 340893675
			2m49.722s fail 1476754767
			3m12.7s vanish 1802491646
			3m15.689s die 255392349
			3m24.958s restart 863355295
			3m30.468s crash 3213457008
			3m44.49s create 3420522966
			3m50.595s restart 2724750266
			3m51.711s fail 1681930932
			4m5.014s die 1751237274
			4m19.126s scale 645311316
			4m30.078s restart 3113800737
			4m36.502s die 3663019542
			5m3.712s crash 2114483340`},
		{"a pod whose only checked container has finished is waited for for ever", 3708, `
			21.118s service 167008229
			32.849s die 1749589602`},
		{"a container that starts after its task's end, and is stopped late, goes before its keep time is over", 34696, `
			26.708s slow 3072317954
			28.131s group 3675187469
			29.591s throttle 3087208629
			36.098s throttle 1467990777
			1m7.145s mortal 478145832`},
		{"the lookup of a container that is gone ends the task, though another one was told meanwhile", 1795294016962027242, `
			3s create 3076741103
			7.135s create 171465323
			11.527s create 21033397
			23.849s reset 2511686970
			26.5s config 3964520940
			29.384s bad-listing 4207884475
			30.711s spike 1511580372
			32.614s scale 2062844397
			33.407s vanish 965476151
			34.731s behead 3249279064
			34.802s scale 2977321000
			35.633s delete 3017652621
			36.831s crash 3927776434
			37.407s promote 1840442319
			37.579s kill 1242807682
			53.784s cut 1212643999
			54.841s scale 106177629
			57.858s service 117768626
			1m2.056s config 1414392104
			1m2.429s delete 2609067859
			1m6.071s lose-reply 3812738807`},
		{"Marathon looks for what it has left reserved just when it is asked whether all is at rest", 1795294016962019422, `
			3m13.804s service 1288115024
			3m54.797s service 1548665484
			6m24.022s config 480544793`},
		{"after a restart the lost instances that were replaced count again, and those that replaced them are ended", 1795294751532699182, `
			3s create 3645800839
			4m21.384s create 584089655
			6m15.668s group 3621431306
			6m56.46s config 3564464461
			6m57.846s cut 3990463512
			9m10.057s behead 3034261150
			10m35.036s scale 3119904810`},
		{"the volumes of a task that was given up, and ended before Marathon was told, are free", 1795295446230898875, `
			12.895s group 3033112589
			22.456s spike 1234021021
			39.555s crash 2158584102
			46.857s service 3745729845
			49.811s service 1548728936
			55.75s vanish 3628852370
			1m4.74s service 738150341
			1m11.675s vanish 1950925477
			1m20.759s cut 3936285347
			1m31.424s mortal 2494989438
			1m45.155s crash 2060954039
			1m46.697s group 585999501
			1m59.227s mortal 1125813911
			2m12.124s crash 3460589322
			2m26.314s cut 1835613386
			2m38.724s kill 851353527
			3m37.993s spike 188538908
			4m0.82s host-loss 2704677949
			4m35.418s config 2226292866`},
		{"the volumes of a task that never reached its agent and was given up are free, and were taken for occupied", 1795290766595007952, `
			6m54.934s create 2222799658
			16m3.157s service 1927632632
			19m3.522s group 471556334
			20m11.023s cut 3536066341
			20m49.546s host-loss 809067590
			21m48.901s cut 3560846078
			23m44.448s cut 2684578469
			26m54.2s behead 3003719476`},
		{"what served before a change is ended for it in the moment in which it is taken back", 1795290147437622810, `
			12.343s slow 3961297642
			17.068s slow 3756196467
			17.994s service 2990936348
			19.027s service 3574218820
			28.572s slow 4131583906
			29.847s slow 1886940683
			30.647s scale 3968302457
			31.507s service 954168229
			33.063s delete 1070377214
			34.539s slow 267609259
			38.804s slow 444527609
			46.706s scale 548083630`},
	} {
		s, err := ParseScenario(r.scenario)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []Scenario{s, Generate(r.seed)} {
			if f := New(r.seed, Options{}).Run(s); f != nil {
				t.Errorf("%s: %v", r.what, f)
			}
		}
	}
}
