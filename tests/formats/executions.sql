BEGIN TRANSACTION;
CREATE TABLE executions (
            execution_id TEXT PRIMARY KEY,
            status TEXT NOT NULL,
            head TEXT NOT NULL,
            head_check INTEGER NOT NULL,
            state TEXT NOT NULL,
            state_check INTEGER NOT NULL
        ) WITHOUT ROWID
        ;
INSERT INTO "executions" VALUES('01a0c442-b15a-7000-8000-000000000007','SUCCEEDED','["of-900","lamp","set","{\"n\": \"\\u0000é\" }",3600,1789999100.25,"ops","k1","f1","https://example.com/a"]',2637362781,'{"attempts":1,"conflicts":1,"published_at":1789999101.25,"delivered_at":1789999101.75,"started_at":1789999102.25,"ended_at":1789999102.25,"result":"{\"a\":[1,2]}"}',1442938157);
INSERT INTO "executions" VALUES('01a0c444-37fa-7000-8000-000000000007','FAILED','["of-800","lamp","set","{\"n\": \"\\u0000é\" }",3600,1789999200.25,"","","",""]',2765481419,'{"attempts":1,"published_at":1789999200.25,"started_at":1789999209.25,"ended_at":1789999209.25,"reason":{"reasonCode":"E","reasonDescription":"x\u0000y"}}',2483147774);
INSERT INTO "executions" VALUES('01a0c445-be9a-7000-8000-000000000007','REJECTED','["of-700","lamp","set","{\"n\": \"\\u0000é\" }",3600,1789999300.25,"","","",""]',3632010409,'{"ended_at":1789999301.25,"reason":{"reasonCode":"REFUSED_BY_DEVICE"}}',2283213152);
INSERT INTO "executions" VALUES('01a0c447-453a-7000-8000-000000000007','TIMED_OUT','["of-600","lamp","set","{\"n\": \"\\u0000é\" }",60,1789999400.25,"","","","https://example.com/b"]',961699827,'{"attempts":1,"published_at":1789999400.25,"delivered_at":1789999401.25,"started_at":1789999490.25,"ended_at":1789999460.25,"reason":{"reasonCode":"NO_RESPONSE","reasonDescription":"the thing has the request but did not answer within the TTL; it may have run"},"late":{"status":"FAILED","at":1789999490.25,"delay_seconds":30.0,"result":"null","reason":{"reasonCode":"L"}},"untold":true}',1061385293);
INSERT INTO "executions" VALUES('01a0c448-cbda-7000-8000-000000000007','CANCELED','["of-500","lamp","set","{\"n\": \"\\u0000é\" }",3600,1789999500.25,"","","",""]',4049469641,'{"cancel_requested_at":1789999505.25,"ended_at":1789999505.25,"reason":{"reasonCode":"CANCELED","reasonDescription":"withdrawn before it was published"}}',442719587);
INSERT INTO "executions" VALUES('01a0c44f-a9aa-7000-8000-000000000007','IN_PROGRESS','["of-50","lamp","set","{\"n\": \"\\u0000é\" }",3600,1789999950.25,"ops","k2","f2",""]',2593504788,'{"attempts":2,"published_at":1789999960.25,"started_at":1789999980.25,"reason":{"reasonCode":"W"},"progress":{"percent":5.0,"message":"on"}}',4117557593);
INSERT INTO "executions" VALUES('01a0c44f-bd32-7000-8000-000000000007','SENT','["of-45","lamp","set","{\"n\": \"\\u0000é\" }",3600,1789999955.25,"","","",""]',1988317638,'{"attempts":1,"published_at":1789999956.25,"cancel_requested_at":1789999957.25,"cancel_grace":600.0}',2008078900);
INSERT INTO "executions" VALUES('01a0c450-45ea-7000-8000-000000000007','SENT','["of-10","lamp","set","{\"n\": \"\\u0000é\" }",3600,1789999990.25,"","","",""]',2607525289,'{}',781757706);
COMMIT;
PRAGMA application_id = 1952998260;
PRAGMA user_version = 1;
